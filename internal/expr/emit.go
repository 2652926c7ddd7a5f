package expr

import "regexp"

// do is what an instruction does, if it is not an op itself.
const (
	doConst  op = 100 + iota // push consts[n]
	doField                  // push field names[n]; end the evaluation if it is missing
	doLook                   // push field names[n], or nil
	doAnd                    // jump to n if the top is false, else drop it
	doOr                     // jump to n if the top is true, else drop it
	doBool                   // refuse a top that is no bool
	doElse                   // jump to n if the top is not nil, else drop it
	doUnless                 // drop the top; jump to n if it was false
	doJump                   // to n
	doChain                  // compare by how the two at the top: if false, leave false and jump to n; else leave the second
)

// instr is an instruction. Jumps lead forward only.
type instr struct {
	do  op
	how op    // the operator behind doAnd, doOr, doBool and doChain
	n   int32 // jump target, index or number of operands
	at  int32 // byte offset in the source
}

// program is a compiled expression. It is not safe for concurrent use.
//
//	C1  Every instruction runs at most once in an evaluation.
//	C2  Between evaluations the stack holds nothing.
type program struct {
	source    string
	kind      kind // of the result, as far as known
	plain     bool // the expression is the one name alone
	names     []string
	code      []instr
	consts    []value
	functions []*function
	patterns  []*regexp.Regexp
	stack     []value // as deep as the code needs
}

// emitter flattens a tree. node(n, depth) emits what pushes the value of n on
// a stack that holds depth values before.
type emitter struct {
	program
	index map[string]int32 // of names
	depth int              // greatest
}

func emit(tree *node, names []string) *program {
	e := emitter{index: make(map[string]int32)}
	for i, n := range names {
		e.index[n] = int32(i)
	}
	e.names, e.plain = names, tree.op == opName
	e.node(tree, 0)
	e.stack = make([]value, e.depth)
	return &e.program
}

func (e *emitter) add(do op, n, at int) int {
	e.code = append(e.code, instr{do: do, n: int32(n), at: int32(at)})
	return len(e.code) - 1
}

// here makes the jump at i lead to what is emitted next.
func (e *emitter) here(i int) { e.code[i].n = int32(len(e.code)) }

func (e *emitter) constant(v value, at int) {
	e.consts = append(e.consts, v)
	e.add(doConst, len(e.consts)-1, at)
}

func (e *emitter) node(n *node, depth int) {
	e.depth = max(e.depth, depth+1)
	switch n.op {
	case opNil:
		e.constant(value{kind: kindNil}, n.at)
	case opTrue, opFalse:
		e.constant(boolValue(n.op == opTrue), n.at)
	case opNumber:
		e.constant(numberValue(n.num), n.at)
	case opText:
		e.constant(textValue(n.text), n.at)
	case opName:
		do := doField
		if n.optional {
			do = doLook
		}
		e.add(do, int(e.index[n.text]), n.at)
	case opAnd, opOr:
		do := doAnd
		if n.op == opOr {
			do = doOr
		}
		e.node(n.kids[0], depth)
		jump := e.add(do, 0, n.at)
		e.node(n.kids[1], depth)
		e.code[e.add(doBool, 0, n.at)].how = n.op
		e.code[jump].how = n.op
		e.here(jump)
	case opCoalesce:
		e.node(n.kids[0], depth)
		jump := e.add(doElse, 0, n.at)
		e.node(n.kids[1], depth)
		e.here(jump)
	case opCond:
		e.node(n.kids[0], depth)
		otherwise := e.add(doUnless, 0, n.kids[0].at)
		e.node(n.kids[1], depth)
		end := e.add(doJump, 0, n.at)
		e.here(otherwise)
		e.node(n.kids[2], depth)
		e.here(end)
	case opChain:
		e.chain(n, depth)
	case opIn:
		e.node(n.kids[0], depth)
		e.add(opIn, e.all(n.kids[1].kids, depth+1), n.at)
	case opMatches:
		e.node(n.kids[0], depth)
		e.patterns = append(e.patterns, n.pattern)
		e.add(opMatches, len(e.patterns)-1, n.at)
	case opCall:
		count := e.all(n.kids, depth)
		e.functions = append(e.functions, n.function)
		i := e.add(opCall, len(e.functions)-1, n.at)
		e.code[i].how = op(count)
	case opNegate:
		if k := n.kids[0]; k.op == opNumber {
			e.constant(numberValue(-k.num), n.at)
			return
		}
		fallthrough
	default:
		e.add(n.op, e.all(n.kids, depth), n.at)
	}
}

func (e *emitter) all(kids []*node, depth int) int {
	for i, k := range kids {
		e.node(k, depth+i)
	}
	return len(kids)
}

func (e *emitter) chain(n *node, depth int) {
	last := len(n.steps) - 1
	var jumps []int
	e.node(n.kids[0], depth)
	for i, step := range n.steps {
		e.node(n.kids[i+1], depth+1)
		if i == last {
			e.add(step, 2, n.stepAt[i])
			break
		}
		j := e.add(doChain, 0, n.stepAt[i])
		e.code[j].how = step
		jumps = append(jumps, j)
	}
	for _, j := range jumps {
		e.here(j)
	}
}
