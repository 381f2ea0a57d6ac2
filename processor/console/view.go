package console

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/catchment-dev/catchment/processor/inspect"
)

// funcs are what templates may call. None returns HTML: the templates escape all that goes through them.
var funcs = template.FuncMap{
	"visible": visible, "text": plainText, "stamp": stamp, "clock": clock, "iso": iso, "ago": ago, "hex": hex.EncodeToString, "size": size, "number": anyNumber,
	"eventURL": eventURL, "lower": strings.ToLower, "took": took, "deref": deref, "json": asJSON, "value": value,
	"outcomes": func() []string { return inspect.Outcomes }, "slug": func(s string) string { return strings.ReplaceAll(s, " ", "-") },
	"at": func(t *time.Time) time.Time { return *t }, "list": func(s ...string) []string { return s },
	"join": func(s []string) string { return strings.Join(s, " ") },
}

// visible shows what others wrote: what cannot be seen, or changes the direction of the text around it, is shown as its code.
func visible(s string) string {
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			fmt.Fprintf(&b, "⟨%04X⟩", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// plainText is visible for a text of several lines.
func plainText(s string) string {
	lines := strings.Split(s, "\n")
	if len(lines) == 1 {
		return strings.ReplaceAll(visible(strings.ReplaceAll(s, "\t", "    ")), "⟨000D⟩", "␍")
	}
	for i, l := range lines {
		lines[i] = plainText(l)
	}
	return strings.Join(lines, "\n")
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000")
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

func iso(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// ago says how long before now a time was.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < -time.Minute:
		return "in " + rough(-d)
	case d < time.Second:
		return "just now"
	}
	return rough(d) + " ago"
}

func rough(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// took shows a duration with three digits.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "−" + took(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d.Microseconds())/1e3)
	case d < 2*time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return rough(d)
}

func size(n int) string {
	switch {
	case n < 10_000:
		return number(int64(n)) + " bytes"
	case n < 10_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// number groups thousands.
func number[T int | int32 | int64](v T) string {
	n := int64(v)
	if n < 0 {
		return "−" + number(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return number(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

func eventURL(source, id string) string {
	return "/console/event?" + url.Values{"source": {source}, "id": {id}}.Encode()
}

// anyNumber is number for templates.
func anyNumber(v any) string {
	switch n := v.(type) {
	case int:
		return number(n)
	case int32:
		return number(n)
	case int64:
		return number(n)
	case *int64:
		if n != nil {
			return number(*n)
		}
	}
	return "–"
}

// asJSON is JSON, indented, in coloured pieces.
func asJSON(text []byte) []token { return pretty(text) }

// value is what was bound to a parameter, as text.
func value(v any) string {
	switch x := v.(type) {
	case nil:
		return "NULL"
	case string:
		return plainText(x)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return plainText(string(text))
}

func hexed(b []byte) string { return hex.EncodeToString(b) }
