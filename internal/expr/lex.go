package expr

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd    tokenKind = iota
	tokenName             // also true, false and nil
	tokenNumber           // num; text is its decimal form if it is an integer
	tokenText             // text is what the quotes hold
	tokenSymbol           // also the operators that are words
)

type token struct {
	kind tokenKind
	at   int // byte offset; for the end that of the last character
	end  int
	text string
	num  float64
}

func (t token) is(symbol string) bool { return t.kind == tokenSymbol && t.text == symbol }

// word says that t can be the name of a member.
func (t token) word() bool {
	if t.kind == tokenName {
		return true
	}
	return t.kind == tokenSymbol && inName(rune(t.text[0]))
}

// fault is an error at a byte offset of the source.
type fault struct {
	at      int
	message string
}

func faultf(at int, format string, args ...any) *fault {
	return &fault{at, fmt.Sprintf(format, args...)}
}

// lexer cuts a source into tokens.
type lexer struct {
	src string
	pos int
}

func (l *lexer) peek() rune {
	if l.pos >= len(l.src) {
		return -1
	}
	r, _ := utf8.DecodeRuneInString(l.src[l.pos:])
	return r
}

func (l *lexer) next() (token, *fault) {
	if f := l.skip(); f != nil {
		return token{}, f
	}
	t := token{at: l.pos, kind: tokenSymbol}
	r, size := utf8.DecodeRuneInString(l.src[l.pos:])
	var f *fault
	switch {
	case size == 0:
		_, last := utf8.DecodeLastRuneInString(l.src)
		return token{kind: tokenEnd, at: l.pos - last, end: l.pos}, nil
	case r == '\'' || r == '"' || r == '`':
		t.kind = tokenText
		t.text, f = l.quoted(byte(r))
	case '0' <= r && r <= '9' || r == '.' && l.pos+1 < len(l.src) && isDigit(l.src[l.pos+1]):
		t.kind = tokenNumber
		t.text, t.num, f = l.number()
	case inName(r):
		l.pos += len(l.src[l.pos:]) - len(strings.TrimLeftFunc(l.src[l.pos:], inName))
		t.text = l.src[t.at:l.pos]
		if !isReserved(t.text) {
			t.kind = tokenName
		}
	default:
		size = symbolSize(l.src[l.pos:])
		if size == 0 {
			return t, faultf(l.pos, "unexpected character %q", r)
		}
		l.pos += size
		t.text = l.src[t.at:l.pos]
	}
	t.end = l.pos
	return t, f
}

// skip passes over spaces and comments.
func (l *lexer) skip() *fault {
	for {
		rest := strings.TrimLeftFunc(l.src[l.pos:], unicode.IsSpace)
		l.pos = len(l.src) - len(rest)
		if comment, ok := strings.CutPrefix(rest, "//"); ok {
			i := strings.IndexByte(comment, '\n')
			if i < 0 {
				i = len(comment)
			}
			l.pos += 2 + i
		} else if comment, ok := strings.CutPrefix(rest, "/*"); ok {
			i := strings.Index(comment, "*/")
			if i < 0 {
				return faultf(l.pos, "comment without end: */ is missing")
			}
			l.pos += 2 + i + 2
		} else {
			return nil
		}
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func inName(r rune) bool {
	return r == '_' || r == '$' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

func isReserved(word string) bool {
	switch word {
	case "and", "or", "not", "in", "matches", "contains", "startsWith", "endsWith", "let", "if", "else":
		return true
	}
	return false
}

// symbolSize is the length of the symbol that s begins with, or 0.
func symbolSize(s string) int {
	if len(s) >= 2 {
		switch s[:2] {
		case "&&", "||", "==", "!=", "<=", ">=", "**", "??", "?.", "..":
			return 2
		}
	}
	if strings.IndexByte("()[]{}.,;:?+-*/%^&|=!<>#", s[0]) >= 0 {
		return 1
	}
	return 0
}

// number reads 12, 1_000, 1.5, .5, 1e3, 0x1F, 0o17 or 0b101.
func (l *lexer) number() (integer string, num float64, f *fault) {
	from := l.pos
	base, digits := 10, "0123456789_"
	if l.src[l.pos] == '0' && l.pos+1 < len(l.src) {
		switch l.src[l.pos+1] | 0x20 {
		case 'x':
			base, digits = 16, "0123456789abcdefABCDEF_"
		case 'o':
			base, digits = 8, "01234567_"
		case 'b':
			base, digits = 2, "01_"
		}
	}
	whole := true
	if base != 10 {
		l.pos += 2
		l.run(digits)
	} else {
		l.run(digits)
		if rest := l.src[l.pos:]; strings.HasPrefix(rest, ".") && !strings.HasPrefix(rest, "..") {
			whole = false
			l.pos++
			l.run(digits)
		}
		if l.pos < len(l.src) && l.src[l.pos]|0x20 == 'e' {
			whole = false
			l.pos++
			if l.pos < len(l.src) && (l.src[l.pos] == '+' || l.src[l.pos] == '-') {
				l.pos++
			}
			l.run(digits)
		}
	}
	text := l.src[from:l.pos]
	if inName(l.peek()) {
		return "", 0, faultf(from, "%q is not a number", l.src[from:l.pos+utf8.RuneLen(l.peek())])
	}
	plain := strings.ReplaceAll(text, "_", "")
	if whole {
		if base != 10 {
			plain = plain[2:]
		}
		n, err := strconv.ParseUint(plain, base, 64)
		if err == nil {
			return strconv.FormatUint(n, 10), float64(n), nil
		}
		if base != 10 {
			return "", 0, faultf(from, "%q is not a number of up to 64 bits", text)
		}
	}
	num, err := strconv.ParseFloat(plain, 64)
	if err != nil {
		return "", 0, faultf(from, "%q is not a number, or too large", text)
	}
	return "", num, nil
}

func (l *lexer) run(of string) {
	for l.pos < len(l.src) && strings.IndexByte(of, l.src[l.pos]) >= 0 {
		l.pos++
	}
}
