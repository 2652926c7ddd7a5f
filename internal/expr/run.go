package expr

import (
	"fmt"
	"math"
	"strings"
)

// maxText is the longest text that + makes, in bytes.
const maxText = 64 << 10

// value is what expressions compute with.
type value struct {
	kind kind
	yes  bool
	num  float64
	text string
}

func numberValue(f float64) value { return value{kind: kindNumber, num: f} }
func textValue(s string) value    { return value{kind: kindText, text: s} }
func boolValue(b bool) value      { return value{kind: kindBool, yes: b} }

// String is v for messages.
func (v value) String() string {
	switch v.kind {
	case kindBool:
		return fmt.Sprint(v.yes)
	case kindNumber:
		return fmt.Sprintf("the number %v", v.num)
	case kindText:
		if len(v.text) > 40 {
			return fmt.Sprintf("the text %q…", v.text[:40])
		}
		return fmt.Sprintf("the text %q", v.text)
	}
	return "nil"
}

func equal(a, b value) bool {
	return a.kind == b.kind && a.yes == b.yes && a.num == b.num && a.text == b.text
}

// run evaluates; ok is false if a missing field or a fault ended it.
func (p *program) run(env Env) (v value, ok bool, f *fault) {
	v, ok, f = p.eval(env)
	clear(p.stack) // C2: its texts may belong to large payloads
	return v, ok, f
}

// eval is the machine. In comments, a and b are what lies on the stack.
func (p *program) eval(env Env) (value, bool, *fault) {
	stack, sp := p.stack, 0 // sp: where the next value goes
	for pc := 0; pc < len(p.code); pc++ {
		in := &p.code[pc]
		switch in.do {
		case doConst:
			stack[sp] = p.consts[in.n]
			sp++
			continue
		case doField, doLook:
			switch v := env.Lookup(p.names[in.n]).(type) {
			case float64:
				stack[sp] = value{kind: kindNumber, num: v}
			case string:
				stack[sp] = value{kind: kindText, text: v}
			case bool:
				stack[sp] = value{kind: kindBool, yes: v}
			case nil:
				if in.do == doField {
					return value{}, false, nil
				}
				stack[sp] = value{kind: kindNil}
			default:
				return value{}, false, faultf(int(in.at), "field %s is neither number nor text, true or false: %T", p.names[in.n], v)
			}
			sp++
			continue
		case doJump:
			pc = int(in.n) - 1
			continue
		case opCall:
			fn := p.functions[in.n]
			from := sp - int(in.how)
			v, complaint := fn.apply(stack[from:sp])
			if complaint != "" {
				return value{}, false, &fault{int(in.at), complaint}
			}
			stack[from] = v
			sp = from + 1
			continue
		case opIn:
			from := sp - int(in.n) - 1
			found := false
			for _, v := range stack[from+1 : sp] {
				found = found || equal(stack[from], v)
			}
			stack[from] = boolValue(found)
			sp = from + 1
			continue
		}

		a := &stack[sp-1]
		switch in.do {
		case doElse: // a ?? …
			if a.kind != kindNil {
				pc = int(in.n) - 1
			} else {
				sp--
			}
			continue
		case doAnd, doOr, doBool, doUnless, opNot:
			if a.kind != kindBool {
				return value{}, false, unary(in, *a)
			}
			switch {
			case in.do == opNot:
				a.yes = !a.yes
			case in.do == doUnless:
				sp--
				if !a.yes {
					pc = int(in.n) - 1
				}
			case in.do == doAnd && !a.yes, in.do == doOr && a.yes:
				pc = int(in.n) - 1
			case in.do != doBool:
				sp--
			}
			continue
		case opNegate, opPlus:
			if a.kind != kindNumber {
				return value{}, false, unary(in, *a)
			}
			if in.do == opNegate {
				a.num = -a.num
			}
			continue
		case opMatches:
			if a.kind != kindText {
				return value{}, false, unary(in, *a)
			}
			*a = boolValue(p.patterns[in.n].MatchString(a.text))
			continue
		}

		sp--
		a, b := &stack[sp-1], &stack[sp]
		switch in.do {
		case opEqual:
			*a = boolValue(equal(*a, *b))
		case opUnequal:
			*a = boolValue(!equal(*a, *b))
		case opLess, opLessEqual, opGreater, opGreaterEqual:
			yes, ok := compare(in.do, a, b)
			if !ok {
				return value{}, false, binary(in.do, in, *a, *b)
			}
			*a = value{kind: kindBool, yes: yes}
		case doChain:
			yes, ok := compare(in.how, a, b)
			if !ok {
				return value{}, false, binary(in.how, in, *a, *b)
			}
			if yes {
				*a = *b
			} else {
				*a = value{kind: kindBool}
				pc = int(in.n) - 1
			}
		default:
			if !arithmetic(in.do, a, b) && !texts(in.do, a, b) {
				return value{}, false, binary(in.do, in, *a, *b)
			}
		}
	}
	return stack[0], true, nil
}

// compare gives a < b and the like; !ok: they do not compare.
func compare(o op, a, b *value) (yes, ok bool) {
	if a.kind == kindNumber && b.kind == kindNumber {
		switch o {
		case opLess:
			return a.num < b.num, true
		case opLessEqual:
			return a.num <= b.num, true
		case opGreater:
			return a.num > b.num, true
		}
		return a.num >= b.num, true
	}
	order := strings.Compare(a.text, b.text)
	switch o {
	case opLess:
		yes = order < 0
	case opLessEqual:
		yes = order <= 0
	case opGreater:
		yes = order > 0
	default:
		yes = order >= 0
	}
	return yes, a.kind == kindText && b.kind == kindText
}

// arithmetic sets a to a + b and the like. Each result is rounded before it is
// used again: float64() forbids to fuse a product with a sum.
func arithmetic(o op, a, b *value) bool {
	if a.kind != kindNumber || b.kind != kindNumber {
		return false
	}
	switch o {
	case opAdd:
		a.num = float64(a.num + b.num)
	case opSubtract:
		a.num = float64(a.num - b.num)
	case opMultiply:
		a.num = float64(a.num * b.num)
	case opDivide:
		a.num = float64(a.num / b.num)
	case opModulo:
		a.num = math.Mod(a.num, b.num)
	default:
		return false
	}
	return true
}

func texts(o op, a, b *value) bool {
	if a.kind != kindText || b.kind != kindText {
		return false
	}
	switch o {
	case opAdd:
		if len(a.text)+len(b.text) > maxText {
			return false
		}
		a.text += b.text
	case opContains:
		*a = boolValue(strings.Contains(a.text, b.text))
	case opStartsWith:
		*a = boolValue(strings.HasPrefix(a.text, b.text))
	case opEndsWith:
		*a = boolValue(strings.HasSuffix(a.text, b.text))
	default:
		return false
	}
	return true
}
