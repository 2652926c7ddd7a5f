package config

import (
	"fmt"
	"io"
	"strings"
)

// WriteHub writes every key of hub.yaml with its default and meaning as
// commented YAML. Read back, it is the same as no configuration at all.
func WriteHub(w io.Writer) error {
	return writeFields(w, hubFields(&Config{}), "hub.yaml: every key, its default and its meaning.\n# A key that is commented out has no fixed default. Sizes: 64MB is 10^6 bytes, 64MiB 2^20.\n# Each key is also a variable (HUB_MQTT_LISTEN) and a flag (--set mqtt.listen=…).")
}

// WriteUplink is WriteHub for uplink.yaml.
func WriteUplink(w io.Writer) error {
	return writeFields(w, uplinkFields(&Uplink{}), "uplink.yaml: every key, its default and its meaning.\n# A key that is commented out has no default; core and topics are needed.\n# Each key is also a variable (UPLINK_HUB) and a flag (--set hub=…).")
}

func writeFields(w io.Writer, root *Field, title string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", title)
	for _, f := range root.fields {
		b.WriteByte('\n')
		writeField(&b, f, "", false)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeField writes one key. Below a map or list, whose entries have no
// defaults to print, every line is a comment.
func writeField(b *strings.Builder, f *Field, indent string, comment bool) {
	lead := indent
	if comment {
		lead = "#" + indent
	}
	doc := f.Doc
	if f.NotYet {
		doc += " Not yet supported."
	}
	value := f.Default
	if strings.HasPrefix(value, ":") {
		value = fmt.Sprintf("%q", value)
	}
	switch {
	case f.NotYet:
		fmt.Fprintf(b, "#%s%s:  # %s (%s)\n", indent, f.Name, doc, f.Type)
	case f.isScalar() && value == "":
		fmt.Fprintf(b, "#%s%s:  # %s (%s)\n", indent, f.Name, doc, f.Type)
	case f.isScalar():
		fmt.Fprintf(b, "%s%s: %s  # %s (%s)\n", lead, f.Name, value, doc, f.Type)
	case f.fields != nil:
		fmt.Fprintf(b, "%s%s:  # %s\n", lead, f.Name, doc)
		for _, c := range f.fields {
			writeField(b, c, indent+"  ", comment)
		}
	default:
		example := f.Example
		if example == "" {
			example = "[]"
		}
		fmt.Fprintf(b, "#%s%s: %s  # %s (%s)\n", indent, f.Name, example, doc, f.Type)
		name := "  <name>:"
		if f.isList() {
			name = "  - # each entry:"
		}
		if f.sample.fields != nil {
			fmt.Fprintf(b, "#%s%s\n", indent, name)
			for _, c := range f.sample.fields {
				writeField(b, c, indent+"    ", true)
			}
		}
	}
}
