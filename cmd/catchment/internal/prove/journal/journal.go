// Package journal is what the simulated providers write down. Attempts and their outcomes come in; lines of a file go out, those
// of attempts synced to disk before Invoke returns, many with one fsync. It must never return before the line is durable, or a
// crash of the prover could forget a request that was sent.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// Outcome is what became of an attempt, as far as its sender can know.
type Outcome string

// The outcomes.
const (
	OK   Outcome = "ok"   // a complete 2xx was read
	Fail Outcome = "fail" // the server definitely did not take it: no connection, or a refusal that says so
	Info Outcome = "info" // anything else: no answer in time, a reset, 5xx, an answer that was cut
)

// The kinds of attempts.
const (
	New       = "new"       // the first request for an event
	Retry     = "retry"     // as long as none was answered with 2xx
	Duplicate = "duplicate" // on purpose, after or beside another
	Conflict  = "conflict"  // the same ID with other bytes
	Forged    = "forged"    // must be refused; Attempt.Forgery says how it is wrong
	Rotation  = "rotation"  // no request: the secrets of a source were changed
)

// Attempt is one request. Its line is written before its first byte is sent.
type Attempt struct {
	Source  string    `json:"source"`
	ID      string    `json:"id"`  // the record's key: the event ID, or the key of a delivery with several events
	Number  uint64    `json:"n"`   // of the attempt, from 1, unique in a run
	At      time.Time `json:"at"`  // when it was written down
	Kind    string    `json:"do"`  // one of the kinds
	SHA256  string    `json:"sum"` // of the body
	Size    int       `json:"size,omitempty"`
	Headers string    `json:"headers,omitempty"` // folder.HeaderDigest of what was sent
	To      string    `json:"to,omitempty"`      // the ingress
	Forgery string    `json:"forgery,omitempty"`
	Poison  string    `json:"poison,omitempty"` // why the event cannot be processed; empty: it can
	Entity  string    `json:"entity,omitempty"`
	Version int64     `json:"version,omitempty"`
	Parts   []Part    `json:"parts,omitempty"` // the events of a delivery with several
}

// Part is one event of a delivery with several.
type Part struct {
	ID      string `json:"id"`
	SHA256  string `json:"sum"`
	Entity  string `json:"entity"`
	Version int64  `json:"version"`
}

// Answer is what came back.
type Answer struct {
	Outcome  Outcome `json:"outcome"`
	Status   int     `json:"status,omitempty"`
	Delivery string  `json:"delivery,omitempty"` // the delivery ID that the ingress gave
	Said     string  `json:"said,omitempty"`     // accepted or duplicate
	Why      string  `json:"why,omitempty"`      // of what was no 2xx
}

// Line is a line of the journal: an attempt, or the answer to one.
type Line struct {
	Attempt
	Answer
}

// IsAnswer says whether the line is the answer to an attempt.
func (l *Line) IsAnswer() bool { return l.Outcome != "" }

// answerLine has the beginning that all lines share, and nothing else of the attempt.
type answerLine struct {
	Source string    `json:"source"`
	ID     string    `json:"id"`
	Number uint64    `json:"n"`
	At     time.Time `json:"at"`
	Answer
}

// ErrClosed is what a journal that was closed says.
var ErrClosed = errors.New("the journal is closed")

// Journal is open for writing. It is safe for concurrent use.
type Journal struct {
	file *os.File
	wake chan struct{}
	done chan struct{}

	mu     sync.Mutex
	buffer []byte
	batch  *batch // of those who wait for the buffer
	closed bool
	err    error // the first one; from then on nothing is written
}

// batch is what one fsync makes durable.
type batch struct {
	synced chan struct{} // closed when it is over
	err    error
}

// Open begins a journal, or goes on with one.
func Open(path string) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	j := &Journal{file: f, wake: make(chan struct{}, 1), done: make(chan struct{}), batch: &batch{synced: make(chan struct{})}}
	go j.write()
	return j, nil
}

// Invoke writes an attempt down and returns when that is durable. An error means that the request may not be sent.
func (j *Journal) Invoke(a Attempt) error {
	b, err := j.append(a)
	if err != nil {
		return err
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
	<-b.synced
	return b.err
}

// Complete writes down what became of an attempt. It becomes durable with the next attempt, or at Close.
func (j *Journal) Complete(a Attempt, answer Answer) error {
	_, err := j.append(answerLine{Source: a.Source, ID: a.ID, Number: a.Number, At: time.Now(), Answer: answer})
	return err
}

func (j *Journal) append(line any) (*batch, error) {
	text, err := json.Marshal(line)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, ErrClosed
	}
	if j.err != nil {
		return nil, j.err
	}
	j.buffer = append(append(j.buffer, text...), '\n')
	return j.batch, nil
}

// write makes what was appended durable, as much as there is each time.
func (j *Journal) write() {
	defer close(j.done)
	var spare []byte
	for range j.wake {
		spare = j.sync(spare)
	}
	j.sync(spare)
}

// sync writes the buffer, and returns it for the next time.
func (j *Journal) sync(spare []byte) []byte {
	j.mu.Lock()
	buffer, b, err := j.buffer, j.batch, j.err
	j.buffer, j.batch = spare[:0], &batch{synced: make(chan struct{})}
	j.mu.Unlock()
	if err == nil && len(buffer) > 0 {
		_, err = j.file.Write(buffer)
		if err == nil {
			err = j.file.Sync()
		}
		if err != nil {
			err = fmt.Errorf("journal: %w", err)
			j.mu.Lock()
			j.err = err
			j.mu.Unlock()
		}
	}
	b.err = err
	close(b.synced)
	return buffer
}

// Close makes everything durable and ends the journal. Nobody may be in Invoke.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.closed = true
	j.mu.Unlock()
	close(j.wake)
	<-j.done
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.err, j.file.Close())
}

// Read yields the lines of a run's journal. keep says of a line's bytes whether it is wanted; nil: all are.
func Read(dir string, keep func(line []byte) bool) iter.Seq2[Line, error] {
	return folder.Each[Line](dir, folder.JournalFile, keep)
}
