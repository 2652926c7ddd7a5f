package expr

import "slices"

// kind is the type of a value, or what is known of it before evaluation.
type kind uint8

const (
	kindAny kind = iota // only before evaluation
	kindNil
	kindBool
	kindNumber
	kindText
)

func (k kind) String() string {
	return [...]string{"anything", "nil", "true or false", "a number", "text"}[k]
}

// may says that a value of kind k may turn out to be one of want.
func (k kind) may(want ...kind) bool { return k == kindAny || slices.Contains(want, k) }

// checker finds the type of a tree, marks the names that may be missing, and
// refuses what can never be evaluated.
type checker struct {
	names []string // in order of appearance
	err   *fault
}

func (c *checker) fail(at int, format string, args ...any) kind {
	if c.err == nil {
		c.err = faultf(at, format, args...)
	}
	return kindAny
}

// optional lets n be missing where it is a name, and so the last part of
// x ?? y.
func optional(n *node) {
	switch n.op {
	case opName:
		n.optional = true
	case opCoalesce:
		optional(n.kids[1])
	}
}

func (c *checker) node(n *node) kind {
	switch n.op {
	case opNil:
		return kindNil
	case opTrue, opFalse:
		return kindBool
	case opNumber:
		return kindNumber
	case opText:
		return kindText
	case opName:
		if !slices.Contains(c.names, n.text) {
			c.names = append(c.names, n.text)
		}
		return kindAny
	case opEnv:
		return c.fail(n.at, `$env is not a field: write $env["name"]`)
	case opMap:
		return c.fail(n.at, "maps are not available")
	case opList:
		return c.fail(n.at, "a list can only stand behind in, as in line in ['a', 'b']")
	case opCoalesce:
		optional(n.kids[0])
	case opEqual, opUnequal:
		if n.kids[1].op == opNil {
			optional(n.kids[0])
		}
		if n.kids[0].op == opNil {
			optional(n.kids[1])
		}
	}
	if n.op == opIn {
		return c.in(n)
	}
	var kinds [3]kind
	for i, kid := range n.kids {
		k := c.node(kid)
		if i < len(kinds) {
			kinds[i] = k
		}
		if n.op == opChain && i > 0 {
			c.comparison(n.steps[i-1], n.stepAt[i-1], kinds[0], k)
			kinds[0] = k
		}
		if n.op == opCond && i == 0 && !k.may(kindBool) {
			c.fail(kid.at, "a condition before ? must be true or false, not %s", k)
		}
		if n.op == opCall && !k.may(n.function.wants...) {
			c.fail(kid.at, "%s wants %s, not %s", n.function.name, n.function.wants[0], k)
		}
	}
	if n.op == opCall {
		return n.function.gives
	}
	return c.operator(n, kinds[0], kinds[1], kinds[2])
}

func (c *checker) operator(n *node, a, b, third kind) kind {
	switch n.op {
	case opChain:
		return kindBool
	case opNot:
		if !a.may(kindBool) {
			c.fail(n.at, "%s wants true or false, not %s", n.op, a)
		}
		return kindBool
	case opNegate, opPlus:
		if !a.may(kindNumber) {
			c.fail(n.at, "%s wants a number, not %s", n.op, a)
		}
		return kindNumber
	case opAdd:
		if !fit(a, b, kindNumber, kindText) {
			return c.fail(n.at, mismatch, n.op, "two numbers or two texts", a, b)
		}
		return max(a, b) // kindAny is the least
	case opSubtract, opMultiply, opDivide, opModulo:
		if !fit(a, b, kindNumber) {
			c.fail(n.at, mismatch, n.op, "two numbers", a, b)
		}
		return kindNumber
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		return c.comparison(n.op, n.at, a, b)
	case opEqual, opUnequal:
		if !comparable(a, b) {
			c.fail(n.at, mismatch, n.op, "two of a kind", a, b)
		}
		return kindBool
	case opAnd, opOr:
		if !fit(a, b, kindBool) {
			c.fail(n.at, mismatch, n.op, "conditions", a, b)
		}
		return kindBool
	case opMatches, opContains, opStartsWith, opEndsWith:
		if !fit(a, b, kindText) {
			c.fail(n.at, mismatch, n.op, "two texts", a, b)
		}
		return kindBool
	case opCond:
		return either(b, third)
	}
	return either(a, b) // opCoalesce
}

const mismatch = "%s wants %s, not %s and %s"

// fit says that a and b may both be of one of the kinds.
func fit(a, b kind, kinds ...kind) bool {
	return a.may(kinds...) && b.may(kinds...) && (a == b || a == kindAny || b == kindAny)
}

func comparable(a, b kind) bool {
	return a == b || a == kindAny || b == kindAny || a == kindNil || b == kindNil
}

func either(a, b kind) kind {
	switch {
	case a == b || b == kindNil:
		return a
	case a == kindNil:
		return b
	}
	return kindAny
}

func (c *checker) comparison(o op, at int, a, b kind) kind {
	if !fit(a, b, kindNumber, kindText) {
		c.fail(at, mismatch, o, "two numbers or two texts", a, b)
	}
	return kindBool
}

func (c *checker) in(n *node) kind {
	a := c.node(n.kids[0])
	possible := len(n.kids[1].kids) == 0
	var k kind
	for _, kid := range n.kids[1].kids {
		k = c.node(kid)
		possible = possible || comparable(a, k)
	}
	if !possible {
		c.fail(n.at, "%s is never in a list of %s", a, k)
	}
	return kindBool
}
