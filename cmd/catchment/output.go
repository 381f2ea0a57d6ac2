package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// load reads the configuration for a command.
func (a *app) load(need ...settings.Section) (*settings.File, error) {
	f, err := settings.Load(a.config, need...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	return f, nil
}

// answer prints v as JSON, or lets table print it.
func (a *app) answer(v any, table func(w io.Writer)) error {
	if a.output == "json" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("print the answer: %w", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	table(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}

// line prints the cells of one table row.
func line(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, clean(fmt.Sprint(c)))
	}
	fmt.Fprintln(w)
}

// clean keeps what others wrote (IDs, types, errors) from moving the cursor or breaking the table.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, strings.ReplaceAll(s, "\n", " "))
	if s == "" {
		return "-"
	}
	return s
}

// stamp prints a time in UTC, or "-" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000Z")
}
