package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// Secret is a text that cannot print itself: every formatting verb, JSON, YAML and slog show [redacted]
// (or nothing at all when it is empty). Only Reveal returns the text.
type Secret struct {
	text string
	file string
}

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the secret text. Its callers are the places where secrets may leave the process's memory.
func (s Secret) Reveal() string { return s.text }

// File is the path of the file that the text was read from; empty: it stood in the configuration itself.
func (s Secret) File() string { return s.file }

// Reread returns the text that the secret's file holds now, and the secret's own text when it came from no file. An
// empty file is an error: it is being written.
func (s Secret) Reread() (string, error) {
	if s.file == "" {
		return s.text, nil
	}
	text, err := readSecretFile(s.file)
	if err == nil && text == "" {
		err = fmt.Errorf("expected a secret in %s, found an empty file", s.file)
	}
	return text, err
}

// readSecretFile reads a file without the line break at its end.
func readSecretFile(name string) (string, error) {
	data, err := os.ReadFile(name)
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), err
}

// Empty says whether there is no text.
func (s Secret) Empty() bool { return s.text == "" }

const redacted = "[redacted]"

// String returns "[redacted]", or "" for the empty secret.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return redacted
}

// GoString keeps %#v from looking inside.
func (s Secret) GoString() string { return "config.Secret(" + s.String() + ")" }

// Format covers every verb, also the ones for which fmt would look into the struct.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText covers YAML and text encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON covers JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// LogValue covers slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
