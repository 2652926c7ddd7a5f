package expr

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// Names of the functions that names and % become. No source can call them:
// the lexer knows no such identifiers.
const (
	getName = "get field"
	optName = "get optional field"
	modName = "modulo"
)

// transformer rewrites a parsed expression into the language of the package
// comment and refuses what that lacks. It makes new nodes where the parser
// may have shared one (1 < a < 5).
type transformer struct {
	*program
	err  *file.Error
	lazy bool // something may be skipped or looked at while missing
}

func (t *transformer) fail(n ast.Node, format string, args ...any) ast.Node {
	if t.err == nil {
		t.err = &file.Error{Location: n.Location(), Message: fmt.Sprintf(format, args...)}
	}
	return n
}

func at(n, from ast.Node) ast.Node {
	n.SetLocation(from.Location())
	return n
}

func (t *transformer) node(n ast.Node) ast.Node {
	if name, ok := t.name(n); ok {
		return t.field(n, getName, name)
	}
	switch n := n.(type) {
	case *ast.NilNode, *ast.BoolNode, *ast.FloatNode, *ast.StringNode:
		return n
	case *ast.IntegerNode:
		return at(&ast.FloatNode{Value: float64(n.Value)}, n)
	case *ast.UnaryNode:
		return at(&ast.UnaryNode{Operator: n.Operator, Node: t.node(n.Node)}, n)
	case *ast.BinaryNode:
		return t.binary(n)
	case *ast.ConditionalNode:
		t.lazy = true
		return at(&ast.ConditionalNode{Ternary: n.Ternary, Cond: t.node(n.Cond), Exp1: t.node(n.Exp1), Exp2: t.node(n.Exp2)}, n)
	case *ast.ArrayNode:
		list := &ast.ArrayNode{}
		for _, e := range n.Nodes {
			list.Nodes = append(list.Nodes, t.node(e))
		}
		return at(list, n)
	case *ast.CallNode:
		return t.call(n)
	case *ast.BuiltinNode:
		return t.fail(n, "function %s is not available here: use one of %s", n.Name, functionNames())
	case *ast.MemberNode, *ast.ChainNode:
		return t.fail(n, `only names have members: write a.b, a["b"] or a[0]`)
	case *ast.IdentifierNode:
		return t.fail(n, "%s is not a field", n.Value)
	}
	return t.fail(n, "this is not available in expressions of the hub")
}

func (t *transformer) binary(n *ast.BinaryNode) ast.Node {
	left, right := n.Left, n.Right
	switch n.Operator {
	case "..", "|":
		return t.fail(n, "operator %s is not available", n.Operator)
	case "**", "^":
		return t.fail(n, "operator %s is not available, as its results differ between processors: write x*x", n.Operator)
	case "||", "or":
		t.lazy = true
	case "matches":
		if _, ok := right.(*ast.StringNode); !ok {
			return t.fail(right, "matches wants a pattern in quotes")
		}
	case "%":
		call := &ast.CallNode{Callee: &ast.IdentifierNode{Value: modName}, Arguments: []ast.Node{t.node(left), t.node(right)}}
		return at(call, n)
	case "??":
		return at(&ast.BinaryNode{Operator: n.Operator, Left: t.optional(left), Right: t.node(right)}, n)
	case "==", "!=":
		if isNil(right) {
			return at(&ast.BinaryNode{Operator: n.Operator, Left: t.optional(left), Right: right}, n)
		}
		if isNil(left) {
			return at(&ast.BinaryNode{Operator: n.Operator, Left: left, Right: t.optional(right)}, n)
		}
	}
	return at(&ast.BinaryNode{Operator: n.Operator, Left: t.node(left), Right: t.node(right)}, n)
}

func isNil(n ast.Node) bool {
	_, ok := n.(*ast.NilNode)
	return ok
}

// optional is node for an operand that may be missing.
func (t *transformer) optional(n ast.Node) ast.Node {
	t.lazy = true
	if name, ok := t.name(n); ok {
		return t.field(n, optName, name)
	}
	return t.node(n)
}

func (t *transformer) field(n ast.Node, fn, name string) ast.Node {
	i := slices.Index(t.names, name)
	if i < 0 {
		i = len(t.names)
		t.names = append(t.names, name)
	}
	call := &ast.CallNode{Callee: &ast.IdentifierNode{Value: fn}, Arguments: []ast.Node{at(&ast.IntegerNode{Value: i}, n)}}
	call.Callee.SetLocation(n.Location())
	return at(call, n)
}

// name flattens a name or a chain of members.
func (t *transformer) name(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.ChainNode:
		return t.name(n.Node)
	case *ast.IdentifierNode:
		return n.Value, n.Value != "$env"
	case *ast.MemberNode:
		if n.Method {
			return "", false
		}
		var key string
		switch p := n.Property.(type) {
		case *ast.StringNode:
			key = p.Value
		case *ast.IntegerNode:
			key = strconv.Itoa(p.Value)
		default:
			return "", false
		}
		if id, ok := n.Node.(*ast.IdentifierNode); ok && id.Value == "$env" {
			return key, key != ""
		}
		parent, ok := t.name(n.Node)
		return parent + "." + key, ok
	}
	return "", false
}

func (t *transformer) call(n *ast.CallNode) ast.Node {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return t.fail(n, "only functions can be called: use one of %s", functionNames())
	}
	f, ok := lookupFunction(id.Value)
	if !ok {
		return t.fail(n, "unknown function %s: use one of %s", id.Value, functionNames())
	}
	if len(n.Arguments) < f.min || len(n.Arguments) > f.max {
		return t.fail(n, "%s takes %s", id.Value, f.arity())
	}
	call := &ast.CallNode{Callee: at(&ast.IdentifierNode{Value: id.Value}, id)}
	for _, a := range n.Arguments {
		call.Arguments = append(call.Arguments, t.node(a))
	}
	return at(call, n)
}
