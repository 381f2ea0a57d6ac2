package processor

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

const (
	circuitOpens = 50 // failures of class 42 in a row
	firstProbe   = time.Second
	longestProbe = 30 * time.Second
)

const heldByCircuit = "the operation's circuit is open: its SQL was refused (class 42) for event after event"

// sign is what an attempt says about its operation's deployment.
type sign int

const (
	noSign   sign = iota // the SQL was not run, or not to its end
	accepted             // Postgres took the SQL, whatever it then said about the data
	worked               // it succeeded
	refused              // class 42: a table, a column or a right is missing, or the SQL is wrong
)

func signOf(effect *store.Effect, err error) sign {
	var call *store.CallError
	switch {
	case err == nil && effect != nil:
		return worked
	case err == nil || !errors.As(err, &call):
		return noSign
	case store.IsRefused(err):
		return refused
	case store.IsTimeout(err):
		return noSign
	}
	return accepted
}

// circuit is what this process knows about an operation's deployment. It opens after circuitOpens refusals in a row;
// attempts then wait in Postgres, and now and then one of them is made to see whether it closes again. Each process
// learns for itself.
type circuit struct {
	mu     sync.Mutex
	run    int // refusals since the last attempt that was accepted
	open   bool
	worked time.Time // the last success
	probe  time.Time // when the next probe may be made
	pause  time.Duration
}

func (c *circuit) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

func (c *circuit) refusals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

// workedSince says whether the operation has succeeded after t.
func (c *circuit) workedSince(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.worked.After(t)
}

// note takes in what committed attempts say, and whether that has opened or closed the circuit.
func (c *circuit) note(now time.Time, signs ...sign) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.open
	for _, s := range signs {
		switch s {
		case refused:
			c.run++
			if c.run >= circuitOpens && !c.open {
				c.open, c.pause, c.probe = true, firstProbe, now.Add(firstProbe)
			}
		case worked:
			c.worked = now
			c.run, c.open = 0, false
		case accepted:
			c.run, c.open = 0, false
		case noSign:
		}
	}
	return c.open != before
}

// mayProbe says, to one caller each time, that a probe may be made.
func (c *circuit) mayProbe(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open || now.Before(c.probe) {
		return false
	}
	c.pause = min(2*c.pause, longestProbe)
	c.probe = now.Add(c.pause/2 + rand.N(c.pause/2+1))
	return true
}

// holds says why an operation's attempts are not made now; empty: they are.
func (e *engine) holds(op *operation) string {
	switch {
	case op.away:
		return heldByAbsence
	case e.isPaused(op.spec.Name):
		return heldByPause
	case op.circuit.isOpen():
		return heldByCircuit
	}
	return ""
}

// probing names an operation whose circuit is open and to be tried; empty: none.
func (e *engine) probing() string {
	now := e.now()
	for _, op := range e.ops {
		if !e.isPaused(op.spec.Name) && op.circuit.mayProbe(now) {
			return op.spec.Name
		}
	}
	return ""
}

// learn takes in what the committed attempts of an operation say about its deployment, in their order.
func (e *engine) learn(op *operation, message string, signs ...sign) {
	if !op.circuit.note(e.now(), signs...) {
		return
	}
	gauge := e.metrics.circuits.WithLabelValues(op.spec.Name)
	if op.circuit.isOpen() {
		gauge.Set(1)
		e.log.Error("an operation's circuit is open: its attempts wait until its SQL is accepted again",
			slog.String("operation", op.spec.Name), slog.String("error", message))
		return
	}
	gauge.Set(0)
	e.log.Info("an operation's circuit is closed again", slog.String("operation", op.spec.Name))
}

// openCircuits says which operations' circuits are open in this process, for its console.
func (s *Service) openCircuits(context.Context) map[string]bool {
	open := map[string]bool{}
	for _, op := range s.ops {
		open[op.spec.Name] = op.circuit.isOpen()
	}
	return open
}
