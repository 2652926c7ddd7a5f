package expr

// unary is the fault of an operator that a does not fit.
func unary(in *instr, a value) *fault {
	o, wants := in.do, "true or false"
	switch in.do {
	case doAnd, doOr, doBool:
		o = in.how
	case doUnless:
		return faultf(int(in.at), "a condition before ? must be true or false, not %v", a)
	case opNegate, opPlus:
		wants = "a number"
	case opMatches:
		wants = "a text"
	}
	return faultf(int(in.at), "%s wants %s, not %v", o, wants, a)
}

// binary is the fault of an operator that a and b do not fit.
func binary(o op, in *instr, a, b value) *fault {
	wants := "two numbers"
	switch {
	case o == opAdd && a.kind == kindText && b.kind == kindText:
		return faultf(int(in.at), "+ would make a text of %d bytes, more than %d", len(a.text)+len(b.text), maxText)
	case o == opAdd || o.compares():
		wants = "two numbers or two texts"
	case o == opContains || o == opStartsWith || o == opEndsWith:
		wants = "two texts"
	}
	return faultf(int(in.at), mismatch, o, wants, a, b)
}
