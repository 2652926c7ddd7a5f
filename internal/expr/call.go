package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Call is a call of an aggregate, like quantile(temperature, 0.95), taken
// apart.
type Call struct {
	Name string
	Args []Arg
	src  string
}

// Arg is the source of one argument and where it stands.
type Arg struct {
	Source string
	at     int // byte offset in the call's source
}

// ParseCall takes apart "name(arg, …)". Errors are *Error.
func ParseCall(source string) (*Call, error) {
	if len(source) > MaxSource {
		return nil, tooLong(source)
	}
	c := &Call{src: source}
	open := strings.IndexByte(source, '(')
	if open < 0 {
		return nil, c.fail(len(source), "an aggregate of an expression is wanted, like mean(temperature) or count()")
	}
	c.Name = strings.TrimSpace(source[:open])
	if !isName(c.Name) {
		return nil, c.fail(0, "an aggregate of an expression is wanted, like mean(temperature) or count()")
	}
	depth, from, quote := 0, open+1, byte(0)
	end := -1
	for i := open; i < len(source) && end < 0; i++ {
		ch := source[i]
		switch {
		case quote != 0:
			if ch == '\\' && quote != '`' {
				i++
			} else if ch == quote {
				quote = 0
			}
		case ch == '"' || ch == '\'' || ch == '`':
			quote = ch
		case ch == '(' || ch == '[' || ch == '{':
			depth++
		case ch == ')' || ch == ']' || ch == '}':
			if depth--; depth == 0 {
				end = i
			}
		}
		if end == i || (quote == 0 && ch == ',' && depth == 1) {
			c.Args = append(c.Args, Arg{Source: source[from:i], at: from})
			from = i + 1
		}
	}
	if end < 0 {
		return nil, c.fail(len(source), "missing )")
	}
	if rest := strings.TrimLeft(source[end+1:], " \t\r\n"); rest != "" {
		return nil, c.fail(len(source)-len(rest), "nothing may stand behind the aggregate: compute with its result in the consumer")
	}
	if len(c.Args) == 1 && strings.TrimSpace(c.Args[0].Source) == "" {
		c.Args = nil
	}
	for _, a := range c.Args {
		if strings.TrimSpace(a.Source) == "" {
			return nil, c.fail(a.at, "empty argument")
		}
	}
	return c, nil
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || i > 0 && '0' <= c && c <= '9') {
			return false
		}
	}
	return s != ""
}

func (c *Call) fail(at int, message string) error {
	line, column := position(c.src, at)
	return &Error{Source: c.src, Line: line, Column: column, Message: message}
}

// Fail is an error at the call's name (arg < 0) or at an argument.
func (c *Call) Fail(arg int, format string, args ...any) error {
	at := 0
	if arg >= 0 {
		a := c.Args[arg]
		at = a.at + len(a.Source) - len(strings.TrimLeft(a.Source, " \t\r\n"))
	}
	return c.fail(at, fmt.Sprintf(format, args...))
}

// Scalar compiles an argument; errors stand in the call's source.
func (c *Call) Scalar(arg int) (*Scalar, error) {
	a := c.Args[arg]
	s, err := CompileScalar(a.Source)
	if e, ok := err.(*Error); ok {
		line, column := position(c.src, a.at)
		if e.Line > 1 {
			column = 1
		}
		return nil, &Error{Source: c.src, Line: line + e.Line - 1, Column: column + e.Column - 1, Message: e.Message}
	}
	return s, err
}

func position(src string, at int) (line, column int) {
	head := src[:at]
	line = 1 + strings.Count(head, "\n")
	return line, 1 + utf8.RuneCountInString(head[strings.LastIndexByte(head, '\n')+1:])
}
