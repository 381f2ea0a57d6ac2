package console

import (
	"bytes"
	"encoding/json"
	"strings"
)

// token is a piece of text with the class that colours it.
type token struct{ Class, Text string }

// pretty takes a JSON body apart into coloured pieces, indented, with numbers and texts as they were written. It returns
// nothing where the body is no JSON.
func pretty(body []byte) []token {
	var b bytes.Buffer
	if !json.Valid(body) || json.Indent(&b, bytes.TrimSpace(body), "", "  ") != nil {
		return nil
	}
	var out []token
	plain := 0
	text := b.String()
	flush := func(to int) {
		if to > plain {
			out = append(out, token{"", text[plain:to]})
		}
	}
	for i := 0; i < len(text); {
		end, class := i, ""
		switch c := text[i]; {
		case c == '"':
			end, class = stringEnd(text, i), "s"
			if strings.HasPrefix(text[end:], ":") {
				class = "k"
			}
		case c == '-' || c >= '0' && c <= '9':
			for end < len(text) && strings.IndexByte("+-.eE0123456789", text[end]) >= 0 {
				end++
			}
			class = "n"
		case c >= 'a' && c <= 'z':
			for end < len(text) && text[end] >= 'a' && text[end] <= 'z' {
				end++
			}
			class = "w"
		default:
			i++
			continue
		}
		flush(i)
		out = append(out, token{class, text[i:end]})
		i, plain = end, end
	}
	flush(len(text))
	return out
}

// stringEnd is where the JSON string ends that begins at i.
func stringEnd(text string, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}
