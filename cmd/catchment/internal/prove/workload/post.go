package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
)

// post writes an attempt down, sends it, and writes its outcome down.
func (w *workload) post(ctx context.Context, a journal.Attempt, body []byte, to string, header http.Header) journal.Answer {
	a.Number, a.At, a.To = w.attempts.Add(1), time.Now(), to
	header.Set(folder.AttemptHeader, strconv.FormatUint(a.Number, 10))
	a.Headers = folder.HeaderDigest(header)
	// A request that was begun is not cut off when the run ends: it would be one more that nobody knows anything of.
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, to+"/webhooks/"+a.Source, bytes.NewReader(body))
	if err != nil {
		w.fail(err)
		return journal.Answer{Outcome: journal.Fail}
	}
	req.Header = header
	if err := w.o.Journal.Invoke(a); err != nil {
		w.fail(err)
		return journal.Answer{Outcome: journal.Fail}
	}
	w.progress.Attempts.Add(1)
	answer := w.exchange(req)
	if err := w.o.Journal.Complete(a, answer); err != nil {
		w.fail(err)
	}
	return answer
}

// exchange sends a request and judges what its sender can know of it.
func (w *workload) exchange(req *http.Request) journal.Answer {
	resp, err := w.client.Do(req)
	if err != nil {
		return journal.Answer{Outcome: unanswered(err), Why: cause(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	a := journal.Answer{Status: resp.StatusCode, Delivery: resp.Header.Get("Catchment-Delivery-Id")}
	switch {
	case err != nil:
		a.Outcome, a.Why = journal.Info, "the answer was cut: "+cause(err)
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		var said struct{ Status string }
		_ = json.Unmarshal(text, &said)
		a.Outcome, a.Said = journal.OK, said.Status
	case resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusRequestTimeout:
		a.Outcome = journal.Fail
	default:
		a.Outcome = journal.Info
	}
	return a
}

// unanswered is Fail where there was no connection, so that no byte was sent.
func unanswered(err error) journal.Outcome {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return journal.Fail
	}
	return journal.Info
}

// cause leaves the URL out.
func cause(err error) string {
	var whole *url.Error
	if errors.As(err, &whole) {
		err = whole.Err
	}
	return err.Error()
}
