package expr

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// maxPattern is how many steps a pattern may have once its repetitions are
// written out: matching costs as many for each character, at worst.
const maxPattern = 10_000

func compilePattern(source string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if n := patternSize(tree); n > maxPattern {
		return nil, fmt.Errorf("its repetitions are too many: %d steps, of %d", n, maxPattern)
	}
	return regexp.Compile(source)
}

func patternSize(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n += patternSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}
