package expr

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// quoted reads text in quotes. In '…' and "…" a backslash escapes as in Go
// (\n, \', \", \\, \x41, \101, \u00e4, also \u{e4}) and lines do not break; in
// `…` all stands for itself and “ is a single one. Bytes that are no UTF-8
// become U+FFFD.
func (l *lexer) quoted(quote byte) (string, *fault) {
	from := l.pos
	l.pos++
	var b strings.Builder
	for l.pos < len(l.src) {
		switch c := l.src[l.pos]; {
		case c == quote:
			l.pos++
			if quote != '`' || l.pos >= len(l.src) || l.src[l.pos] != quote {
				return b.String(), nil
			}
			b.WriteByte(c)
			l.pos++
		case c == '\n' && quote != '`':
			return "", faultf(from, "text without end: the closing %c is missing", quote)
		case c == '\\' && quote != '`':
			r, size := unescape(l.src[l.pos:])
			if size == 0 {
				return "", faultf(l.pos, `unknown escape: write \\ for a backslash, or quote with %s`, "`…`")
			}
			b.WriteRune(r)
			l.pos += size
		default:
			r, size := utf8.DecodeRuneInString(l.src[l.pos:])
			b.WriteRune(r)
			l.pos += size
		}
	}
	return "", faultf(from, "text without end: the closing %c is missing", quote)
}

// unescape reads the escape that s begins with; size 0: there is no such.
func unescape(s string) (r rune, size int) {
	if len(s) < 2 {
		return 0, 0
	}
	digits := 0
	switch c := s[1]; c {
	case 'a', 'b', 'f', 'n', 'r', 't', 'v':
		return rune("\a\b\f\n\r\t\v"[strings.IndexByte("abfnrtv", c)]), 2
	case '\\', '\'', '"', '`':
		return rune(c), 2
	case '0', '1', '2', '3':
		return point(s, 1, 3, 8)
	case 'x':
		digits = 2
	case 'U':
		digits = 8
	case 'u':
		digits = 4
		if len(s) > 2 && s[2] == '{' {
			end := strings.IndexByte(s, '}')
			if end < 4 || end > 9 {
				return 0, 0
			}
			if r, size = point(s, 3, end-3, 16); size > 0 {
				size = end + 1
			}
			return r, size
		}
	default:
		return 0, 0
	}
	return point(s, 2, digits, 16)
}

// point reads the digits of a code point at s[from:].
func point(s string, from, digits, base int) (rune, int) {
	if len(s) < from+digits {
		return 0, 0
	}
	n, err := strconv.ParseUint(s[from:from+digits], base, 32)
	if err != nil || n > utf8.MaxRune {
		return 0, 0
	}
	return rune(n), from + digits
}
