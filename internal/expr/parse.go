package expr

import "fmt"

// parser makes a tree of a source. Invariants:
//
//	P1  err is the first fault. From then on the token is the end, so that all
//	    loops and recursions run out, and functions give nodes nobody reads.
//	P2  Every recursion passes through expression, which counts its depth.
//	P3  Every node comes from node, which counts them. So the tree, however
//	    lopsided, is no deeper than maxNodes.
type parser struct {
	lex   lexer
	tok   token
	nodes int
	depth int
	err   *fault
}

func parse(source string) (*node, *fault) {
	p := &parser{lex: lexer{src: source}}
	p.next()
	n := p.expression(0)
	if p.tok.kind != tokenEnd {
		p.unexpected()
	}
	return n, p.err
}

func (p *parser) next() {
	if p.err != nil {
		return
	}
	t, f := p.lex.next()
	if f != nil {
		p.fail(f.at, "%s", f.message)
		return
	}
	p.tok = t
}

func (p *parser) fail(at int, format string, args ...any) *node {
	if p.err == nil {
		p.err = faultf(at, format, args...)
	}
	p.tok = token{kind: tokenEnd, at: at, end: at}
	return &node{}
}

func (p *parser) unexpected() *node {
	t := p.tok
	what := fmt.Sprintf("unexpected %q", p.lex.src[t.at:t.end])
	switch {
	case t.kind == tokenEnd:
		what = "unexpected end"
	case t.is("="):
		what += ": use == to compare"
	case t.is("&"):
		what += ": use && for and"
	case t.is(";"):
		what += ": there is one expression only"
	case t.is("if"):
		what += ": write condition ? a : b"
	}
	return p.fail(t.at, "%s", what)
}

func (p *parser) expect(symbol string) {
	if !p.tok.is(symbol) {
		p.unexpected()
		return
	}
	p.next()
}

func (p *parser) node(o op, at int, kids ...*node) *node {
	if p.nodes++; p.nodes > maxNodes {
		return p.fail(at, "too long: more than %d operators, names and values", maxNodes)
	}
	return &node{op: o, at: at, kids: kids}
}

// expression reads operands and the operators between them that bind at least
// as tight as precedence.
func (p *parser) expression(precedence int) *node {
	if p.depth++; p.depth > maxDepth {
		return p.fail(p.tok.at, "nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	left := p.prefix()
	for last := opNil; ; {
		t := p.tok
		b := infix(t)
		if b.precedence == 0 || b.precedence < precedence {
			break
		}
		p.next()
		not := b.op == opNot
		if not {
			t = p.tok
			b = infix(t)
			if b.op != opIn && b.op < opMatches {
				return p.unexpected()
			}
			p.next()
		}
		if last == opCoalesce && b.op != opCoalesce && b.op != opNil {
			return p.fail(t.at, "?? and %s do not mix: put parentheses around one of them", b.op)
		}
		left = p.infix(left, t, b)
		if not {
			left = p.node(opNot, t.at, left)
		}
		last = b.op
	}
	if precedence == 0 && p.tok.is("?") {
		at := p.tok.at
		p.next()
		yes := p.expression(0)
		p.expect(":")
		left = p.node(opCond, at, left, yes, p.expression(0))
	}
	return left
}

// infix reads what stands to the right of the operator t.
func (p *parser) infix(left *node, t token, b binding) *node {
	switch {
	case t.is("**"), t.is("^"):
		return p.fail(t.at, "operator %s is not available, as its results differ between processors: write x*x", t.text)
	case t.is("|"):
		return p.fail(t.at, "operator | is not available: use || for or")
	case b.op == opNil:
		return p.fail(t.at, "operator %s is not available", t.text)
	}
	right := p.expression(b.precedence + 1)
	switch {
	case p.err != nil:
		return left
	case b.op == opMatches:
		if right.op != opText {
			return p.fail(right.at, "matches wants a pattern in quotes")
		}
		n := p.node(opMatches, t.at, left, right)
		var err error
		if n.pattern, err = compilePattern(right.text); err != nil {
			return p.fail(right.at, "pattern: %v", err)
		}
		return n
	case b.op == opIn && right.op != opList:
		return p.fail(right.at, "in wants a list, as in line in ['a', 'b']")
	case b.op.compares() && infix(p.tok).op.compares():
		n := p.node(opChain, t.at, left, right)
		n.steps, n.stepAt = []op{b.op}, []int{t.at}
		for infix(p.tok).op.compares() {
			n.steps, n.stepAt = append(n.steps, infix(p.tok).op), append(n.stepAt, p.tok.at)
			p.next()
			n.kids = append(n.kids, p.expression(precedenceCompare+1))
		}
		return n
	}
	return p.node(b.op, t.at, left, right)
}

// prefix reads an operand with what stands before it.
func (p *parser) prefix() *node {
	t := p.tok
	switch {
	case t.is("!"), t.is("not"):
		p.next()
		return p.node(opNot, t.at, p.expression(precedenceNot))
	case t.is("-"):
		p.next()
		return p.node(opNegate, t.at, p.expression(precedenceSign))
	case t.is("+"):
		p.next()
		return p.node(opPlus, t.at, p.expression(precedenceSign))
	}
	return p.members(p.primary())
}
