package expr

// primary reads a literal, a name, a call, a list or what stands in
// parentheses.
func (p *parser) primary() *node {
	t := p.tok
	switch {
	case t.kind == tokenName:
		p.next()
		if p.tok.is("(") {
			return p.call(t)
		}
		return p.named(t)
	case t.kind == tokenNumber:
		p.next()
		n := p.node(opNumber, t.at)
		n.num, n.text = t.num, t.text
		return n
	case t.kind == tokenText:
		p.next()
		n := p.node(opText, t.at)
		n.text = t.text
		return n
	case t.is("("):
		p.next()
		n := p.expression(0)
		p.expect(")")
		return n
	case t.is("["):
		p.next()
		n := p.node(opList, t.at)
		n.kids = p.sequence("]")
		return n
	case t.is("{"):
		p.skipMap()
		return p.node(opMap, t.at)
	case t.is("let"):
		p.next()
		return p.fail(p.tok.at, "variables are not available")
	}
	return p.unexpected()
}

func (p *parser) named(t token) *node {
	o := opName
	switch t.text {
	case "true":
		o = opTrue
	case "false":
		o = opFalse
	case "nil":
		o = opNil
	case "$env":
		o = opEnv
	}
	n := p.node(o, t.at)
	n.text = t.text
	return n
}

// sequence reads expressions up to the closing bracket. A comma may stand
// behind the last.
func (p *parser) sequence(end string) []*node {
	var list []*node
	for !p.tok.is(end) && p.err == nil {
		list = append(list, p.expression(0))
		if !p.tok.is(end) {
			p.expect(",")
		}
	}
	p.expect(end)
	return list
}

// skipMap passes over {…}, which the checker refuses, or members before it.
func (p *parser) skipMap() {
	for depth := 0; p.err == nil; {
		switch {
		case p.tok.kind == tokenEnd:
			p.unexpected()
		case p.tok.is("{"):
			depth++
		case p.tok.is("}"):
			depth--
		}
		p.next()
		if depth == 0 {
			return
		}
	}
}

func (p *parser) call(t token) *node {
	f, ok := lookupFunction(t.text)
	switch {
	case ok:
	case isLoop(t.text):
		return p.fail(t.at, "function %s is not available here: use one of %s", t.text, functionNames())
	default:
		return p.fail(t.at, "unknown function %s: use one of %s", t.text, functionNames())
	}
	p.next()
	n := p.node(opCall, t.at)
	n.function, n.kids = f, p.sequence(")")
	if p.err == nil && (len(n.kids) < f.min || len(n.kids) > f.max) {
		return p.fail(t.at, "%s takes %s", t.text, f.arity())
	}
	return n
}

const onlyNames = `only names have members: write a.b, a["b"] or a[0]`

// members reads .b, ?.b, ["b"] and [0] behind n and flattens them into one
// name.
func (p *parser) members(n *node) *node {
	for p.err == nil {
		dot := p.tok.is(".") || p.tok.is("?.")
		if !dot && !p.tok.is("[") {
			return n
		}
		optional := p.tok.is("?.")
		if dot {
			p.next()
		}
		at := p.tok.at
		var key string
		if !dot || optional && p.tok.is("[") {
			p.next()
			k := p.expression(0)
			if p.tok.is(":") {
				return p.fail(at, "parts of text or lists are not available")
			}
			p.expect("]")
			if k.op != opText && (k.op != opNumber || k.text == "") {
				return p.fail(at, onlyNames)
			}
			key = k.text
		} else {
			if !p.tok.word() {
				if p.tok.kind == tokenEnd {
					return p.unexpected()
				}
				return p.fail(at, "a name is wanted behind the dot")
			}
			key = p.tok.text
			p.next()
			if p.tok.is("(") {
				return p.fail(at, "only functions can be called: use one of %s", functionNames())
			}
		}
		switch {
		case n.op == opName:
			key = n.text + "." + key
		case n.op != opEnv || key == "":
			return p.fail(at, onlyNames)
		}
		n = p.node(opName, n.at)
		n.text = key
	}
	return n
}
