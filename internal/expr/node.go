package expr

import "regexp"

// op is what a node of the tree does.
type op uint8

const (
	opNil op = iota
	opTrue
	opFalse
	opNumber // num; text: decimal form of an integer
	opText   // text
	opName   // text; optional: may be missing
	opEnv    // $env, of which only members are fields
	opMap    // never available
	opList   // kids; only to the right of in

	opNot
	opNegate
	opPlus
	opAdd
	opSubtract
	opMultiply
	opDivide
	opModulo
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opEqual
	opUnequal
	opAnd
	opOr
	opCoalesce
	opIn
	opMatches
	opContains
	opStartsWith
	opEndsWith

	opChain // kids[0] steps[0] kids[1] steps[1] kids[2] …, each kid evaluated once
	opCond  // kids[0] ? kids[1] : kids[2]
	opCall  // function of kids
)

var symbols = [...]string{
	opNot: "!", opNegate: "-", opPlus: "+",
	opAdd: "+", opSubtract: "-", opMultiply: "*", opDivide: "/", opModulo: "%",
	opLess: "<", opLessEqual: "<=", opGreater: ">", opGreaterEqual: ">=", opEqual: "==", opUnequal: "!=",
	opAnd: "&&", opOr: "||", opCoalesce: "??", opIn: "in",
	opMatches: "matches", opContains: "contains", opStartsWith: "startsWith", opEndsWith: "endsWith",
	opCond: "? :",
}

func (o op) String() string { return symbols[o] }

func (o op) compares() bool { return opLess <= o && o <= opGreaterEqual }

// node is an expression and its parts.
type node struct {
	op       op
	optional bool
	at       int // byte offset of its operator, name or literal
	num      float64
	text     string
	kids     []*node
	steps    []op // of opChain, with stepAt
	stepAt   []int
	function *function
	pattern  *regexp.Regexp // of opMatches
}

// binding is how an infix operator binds: tighter with greater precedence,
// to the left all. op is opNil for what is not available.
type binding struct {
	op         op
	precedence int
}

// Precedences that the parser asks for by name.
const (
	precedenceCompare = 20
	precedenceNot     = 50
	precedenceSign    = 90
)

// infix is the operator that t is between two operands; precedence 0: none.
func infix(t token) binding {
	if t.kind != tokenSymbol {
		return binding{}
	}
	switch t.text {
	case "||", "or":
		return binding{opOr, 10}
	case "&&", "and":
		return binding{opAnd, 15}
	case "==":
		return binding{opEqual, precedenceCompare}
	case "!=":
		return binding{opUnequal, precedenceCompare}
	case "<":
		return binding{opLess, precedenceCompare}
	case "<=":
		return binding{opLessEqual, precedenceCompare}
	case ">":
		return binding{opGreater, precedenceCompare}
	case ">=":
		return binding{opGreaterEqual, precedenceCompare}
	case "in":
		return binding{opIn, precedenceCompare}
	case "matches":
		return binding{opMatches, precedenceCompare}
	case "contains":
		return binding{opContains, precedenceCompare}
	case "startsWith":
		return binding{opStartsWith, precedenceCompare}
	case "endsWith":
		return binding{opEndsWith, precedenceCompare}
	case "not": // not in, not matches, …
		return binding{opNot, precedenceCompare}
	case "+":
		return binding{opAdd, 30}
	case "-":
		return binding{opSubtract, 30}
	case "*":
		return binding{opMultiply, 60}
	case "/":
		return binding{opDivide, 60}
	case "%":
		return binding{opModulo, 60}
	case "??":
		return binding{opCoalesce, 500}
	case "|", "..", "**", "^":
		return binding{opNil, 1000}
	}
	return binding{}
}
