package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

//go:embed static templates
var files embed.FS

// pages are the parsed templates by name, and the digest of what they look like.
type pages struct {
	by    map[string]*template.Template
	build string
}

func parsePages() (pages, error) {
	p := pages{by: map[string]*template.Template{}}
	layout, err := template.New("layout.html").Funcs(funcs).ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return p, err
	}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return p, err
	}
	for _, name := range names {
		page := strings.TrimSuffix(strings.TrimPrefix(name, "templates/"), ".html")
		if page == "layout" || page == "parts" {
			continue
		}
		t, err := layout.Clone()
		if err == nil {
			p.by[page], err = t.ParseFS(files, name)
		}
		if err != nil {
			return p, err
		}
	}
	h := sha256.New()
	for _, name := range []string{"console.css", "console.js", "icon.svg"} {
		text, err := files.ReadFile("static/" + name)
		if err != nil {
			return p, err
		}
		h.Write(text)
	}
	p.build = hex.EncodeToString(h.Sum(nil)[:6])
	return p, nil
}

// policy lets a page load this server's style, script, icon and live events, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func guard(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
}

// fault is an error with the status that it is answered with.
type fault struct {
	status int
	text   string
}

func (f *fault) Error() string { return f.text }

func wrong(format string, args ...any) error {
	return &fault{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) error {
	return &fault{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

// visit is one request of somebody who may make it.
type visit struct {
	*http.Request
	w       http.ResponseWriter
	who     *person
	console *Console
}

// act is what is recorded of a visit.
func (v *visit) act(reason string) control.Act {
	return control.Act{Actor: v.who.name, Reason: strings.TrimSpace(reason)}
}

// page is a handler that needs roles, view-metadata always among them.
type page struct {
	needs   []string
	timeout time.Duration
	serve   func(*visit) error
}

func (c *Console) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, p := range map[string]page{
		"GET /console/{$}":            {serve: c.events},
		"GET /console/events":         {serve: c.events},
		"GET /console/events/live":    {serve: c.live, timeout: liveFor},
		"GET /console/event":          {serve: c.event},
		"GET /console/event/places":   {serve: c.places},
		"POST /console/event/payload": {serve: c.payload, needs: []string{settings.ViewPayload}},
		"POST /console/event/body":    {serve: c.download, needs: []string{settings.ViewPayload}},
		"GET /console/overview":       {serve: c.overview},
		"GET /console/sources":        {serve: c.sources},
		"GET /console/actions":        {serve: c.actions},
		"GET /console/operations":     {serve: c.operations},
		"POST /console/operations":    {serve: c.switchOperation, needs: needsOperate},

		"GET /console/dead-letters":                {serve: c.letters},
		"GET /console/dead-letter":                 {serve: c.letter},
		"POST /console/dead-letter/payload":        {serve: c.letterPayload, needs: []string{settings.ViewPayload}},
		"POST /console/dead-letters/redrive":       {serve: c.redrive, needs: needsOperate, timeout: longTimeout},
		"POST /console/dead-letters/redrive/start": {serve: c.startRedrive, needs: needsOperate, timeout: longTimeout},

		"GET /console/replay":        {serve: c.replayForm, needs: needsOperate},
		"POST /console/replay/try":   {serve: c.tryReplay, needs: needsOperate, timeout: longTimeout},
		"POST /console/replay/start": {serve: c.startReplay, needs: needsOperate, timeout: longTimeout},
		"GET /console/jobs":          {serve: c.jobs},
		"GET /console/job":           {serve: c.job},
		"GET /console/job/state":     {serve: c.jobState},
		"POST /console/job/cancel":   {serve: c.cancel, needs: needsOperate},
		"GET /console/audit":         {serve: c.audit},
		"GET /console/audit/state":   {serve: c.auditState},
		"POST /console/audit":        {serve: c.startAudit, needs: needsOperate},

		"/console/": {serve: func(*visit) error { return missing("There is no such page.") }},
	} {
		mux.Handle(pattern, c.guarded(p))
	}
	mux.HandleFunc("GET /console/static/{build}/{name}", c.static)
	return mux
}

// static serves style, script and icon. They say nothing about anybody, so they are for everybody.
func (c *Console) static(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	if r.PathValue("build") == c.pages.build {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeFileFS(w, r, files, "static/"+r.PathValue("name"))
}

const mostForm = 64 << 10

// guarded lets those in who may.
func (c *Console) guarded(p page) http.Handler {
	if p.timeout == 0 {
		p.timeout = pageTimeout
	}
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		v := &visit{Request: r, w: w, who: &person{}, console: c}
		defer v.recover()
		who, err := c.gate.who(r)
		if err != nil {
			c.refuse(w, r, err)
			return
		}
		v.who = who
		for _, need := range append([]string{settings.ViewMetadata}, p.needs...) {
			if !who.may(need) {
				c.log.Warn("refused", slog.String("user", who.name), slog.String("page", r.Pattern), slog.String("missing_role", need))
				v.fail(&fault{http.StatusForbidden, fmt.Sprintf("You are %s, and this needs the role %s, which you have not.", who.name, need)})
				return
			}
		}
		if err := cross.Check(r); err != nil {
			v.fail(&fault{http.StatusForbidden, "This request comes from another site's page, and nothing was done."})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), p.timeout)
		defer cancel()
		v.Request = r.WithContext(ctx)
		v.Body = http.MaxBytesReader(w, v.Body, mostForm)
		if err := v.ParseForm(); err != nil {
			v.fail(wrong("The form cannot be read."))
			return
		}
		if err := p.serve(v); err != nil {
			v.fail(err)
		}
	})
}

// recover turns a panic into a page. Nobody gets to know what it says, which may be what the page was made of.
func (v *visit) recover() {
	if p := recover(); p != nil {
		v.console.log.Error("a page panicked", slog.String("page", v.Pattern), slog.String("panic", run.Panicked(p)), slog.String("stack", string(debug.Stack())))
		v.fail(&fault{http.StatusInternalServerError, "This failed. The console's log says why."})
	}
}

// refuse answers whom the gate does not know.
func (c *Console) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusForbidden
	switch {
	case errors.Is(err, errUnknown) && c.gate.decoy != nil:
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="Catchment", charset="UTF-8"`)
	case errors.Is(err, errTooOften), errors.Is(err, errBusy):
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "60")
	}
	if _, _, tried := r.BasicAuth(); tried || status != http.StatusUnauthorized {
		c.log.Warn("refused", slog.String("remote_addr", r.RemoteAddr), slog.String("page", r.Pattern), slog.Any("error", err))
	}
	v := &visit{Request: r, w: w, who: &person{}, console: c}
	v.fail(&fault{status, strings.ToUpper(err.Error()[:1]) + err.Error()[1:]})
}

// fail answers an error with a page. What went wrong inside is for the log, where it may name addresses.
func (v *visit) fail(err error) {
	f := &fault{http.StatusInternalServerError, "This failed. The console's log says why."}
	switch {
	case errors.As(err, &f):
	case errors.Is(err, inspect.ErrNoSchema):
		f = &fault{http.StatusServiceUnavailable, "The database has no tables of Catchment yet: they are made when the processor starts."}
	case errors.Is(err, context.DeadlineExceeded):
		f = &fault{http.StatusServiceUnavailable, "This took too long, and was given up. A shorter time or a source narrows it."}
	case v.Context().Err() != nil:
		return // nobody waits for it any more
	default:
		if inspect.Unreachable(err) {
			f = &fault{http.StatusServiceUnavailable, "Postgres does not answer."}
		}
		v.console.log.Error("a page failed", slog.String("page", v.Pattern), slog.Any("error", err))
	}
	v.renderStatus(f.status, "fault", http.StatusText(f.status), f.text)
}

// view is what every template gets.
type view struct {
	Title string
	Page  string
	Build string
	Who   string
	Local bool
	May   struct{ View, Payload, Operate bool }
	Now   time.Time
	Data  any
}

func (v *visit) render(page, title string, data any) error {
	v.renderStatus(http.StatusOK, page, title, data)
	return nil
}

func (v *visit) renderStatus(status int, page, title string, data any) {
	x := view{Title: title, Page: page, Build: v.console.pages.build, Who: v.who.name, Local: v.console.gate.local != "", Now: v.console.now(), Data: data}
	x.May.View, x.May.Payload, x.May.Operate = v.who.may(settings.ViewMetadata), v.who.may(settings.ViewPayload), v.who.may(settings.Operate)
	var out bytes.Buffer
	if err := v.console.pages.by[page].Execute(&out, x); err != nil {
		v.console.log.Error("a page cannot be written", slog.String("page", page), slog.Any("error", err))
		http.Error(v.w, "This page cannot be shown.", http.StatusInternalServerError)
		return
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(out.Bytes())
}
