package expr

import "testing"

// BenchmarkMatch is a filter of three clauses.
func BenchmarkMatch(b *testing.B) {
	env := fields{"temperature": 21.5, "humidity": 40.0, "battery": 3.1, "line": "a"}
	for _, c := range []struct{ name, src string }{
		{"numbers", "temperature > -40 && temperature < 200 && humidity <= 100"},
		{"text", "temperature < 200 && battery > 2.7 && line == 'a'"},
		{"computed", "temperature * 1.8 + 32 < 400 && abs(humidity - 50) < 40 && battery > 2.7"},
		{"lazy", "temperature > 1000 || humidity < 0 || battery > 2.7"},
		{"list", "line in ['b', 'c', 'a']"},
		{"missing", "temperature < 200 && pressure > 900 && line == 'a'"},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, err := CompileFilter(c.src)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := f.Match(env); ok == (c.name == "missing") || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CompileFilter("temperature > -40 && temperature < 200 && humidity <= 100"); err != nil {
			b.Fatal(err)
		}
	}
}
