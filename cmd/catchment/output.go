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

// list prints a long answer as it comes: one JSON array, or a table whose columns fit each part.
type list struct {
	a     *app
	table *tabwriter.Writer
	n     int
	err   error
}

func (a *app) newList(heads ...any) *list {
	l := &list{a: a, table: tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)}
	if a.output == "table" {
		line(l.table, heads...)
	}
	return l
}

// add takes one element: as JSON, and as the cells of a row.
func (l *list) add(v any, cells ...any) {
	if l.err != nil {
		return
	}
	if l.a.output == "table" {
		line(l.table, cells...)
		return
	}
	separator := ",\n  "
	if l.n == 0 {
		separator = "[\n  "
	}
	l.n++
	var b strings.Builder
	b.WriteString(separator)
	e := json.NewEncoder(&b)
	e.SetIndent("  ", "  ")
	e.SetEscapeHTML(false)
	if l.err = e.Encode(v); l.err == nil {
		_, l.err = io.WriteString(l.a.out, strings.TrimSuffix(b.String(), "\n"))
	}
}

// flush prints the rows so far.
func (l *list) flush() error {
	if l.err == nil {
		l.err = l.table.Flush()
	}
	if l.err != nil {
		return fmt.Errorf("print the answer: %w", l.err)
	}
	return nil
}

// end closes the answer.
func (l *list) end() error {
	if l.err == nil && l.a.output == "json" {
		end := "\n]\n"
		if l.n == 0 {
			end = "[]\n"
		}
		_, l.err = io.WriteString(l.a.out, end)
	}
	return l.flush()
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
