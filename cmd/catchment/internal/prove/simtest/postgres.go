package simtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// DB is a Postgres in memory, as far as the processor needs one: it speaks the protocol, and knows the statements of
// statements.go by how they begin. Transactions that write come one after the other.
type DB struct {
	lock chan struct{} // the right to write

	mu       sync.Mutex
	state    *state
	past     []version
	sessions map[uint32]*session
	holder   *session // of the right to write
	waiting  map[uint32]bool
	pids     uint32
	down     bool
	fault    CommitFault // of the next COMMIT of a batch
	wrong    []string    // what no sound processor does
	counts   map[string]int
	wg       sync.WaitGroup
}

type version struct {
	at    time.Time
	state *state
}

// CommitFault is what becomes of a COMMIT besides its answer.
type CommitFault int

// The faults of a COMMIT: its connection ends before it is done, or when it is done.
const (
	NoFault CommitFault = iota
	CommitLost
	AnswerLost
)

// NewDB returns an empty database.
func NewDB() *DB {
	return &DB{lock: make(chan struct{}, 1), state: newState(), sessions: map[uint32]*session{}, waiting: map[uint32]bool{}, counts: map[string]int{}}
}

// Serve takes connections until the listener closes, and waits for the sessions' ends.
func (db *DB) Serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		db.wg.Go(func() {
			s := &session{db: db, c: c.(*conn), be: pgproto3.NewBackend(c, c), prepared: map[string]*statement{}, cancel: make(chan struct{}, 1)}
			s.serve()
		})
	}
	db.End()
	db.wg.Wait()
}

// End ends all sessions, as a restart does.
func (db *DB) End() {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, s := range db.sessions {
		s.kill()
	}
}

// Down lets the server refuse, or take, connections; those that stand end.
func (db *DB) Down(on bool) {
	db.mu.Lock()
	db.down = on
	db.mu.Unlock()
	db.End()
}

// Failover makes the database what it was that long ago: a standby that lagged has taken over.
func (db *DB) Failover(lag time.Duration) {
	db.mu.Lock()
	at := time.Now().Add(-lag)
	i := len(db.past) - 1
	for i > 0 && db.past[i].at.After(at) {
		i--
	}
	if i >= 0 {
		old := db.past[i].state.clone()
		if old.moved < db.state.moved {
			db.counts["rolled back"]++
		}
		db.state = old
		db.past = db.past[:i+1]
	}
	for _, s := range db.sessions {
		s.dead = true
	}
	db.mu.Unlock()
	db.End()
}

// Arm lets the next COMMIT of a batch fail so.
func (db *DB) Arm(f CommitFault) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.fault = f
}

// blame notes what no sound processor does.
func (db *DB) blame(format string, args ...any) {
	db.wrong = append(db.wrong, fmt.Sprintf(format, args...))
}

// session is one connection.
type session struct {
	db       *DB
	c        *conn
	be       *pgproto3.Backend
	pid      uint32
	prepared map[string]*statement
	bound    *call
	tx       *tx
	skip     bool // until Sync
	cancel   chan struct{}
	dead     bool // it was ended; guarded by db.mu
}

// tx is a transaction.
type tx struct {
	began  time.Time
	work   *state // a copy to write to; nil: nothing was locked yet
	saves  []save
	failed bool
	idle   time.Duration
	batch  bool // it has had an effect
	block  bool // begun by BEGIN
}

type save struct {
	name string
	work *state
}

func (s *session) kill() {
	s.dead = true
	s.c.in.reset()
	s.c.out.reset()
}

func (s *session) serve() {
	defer func() { _ = s.c.Close() }()
	if !s.greet() {
		return
	}
	defer func() {
		s.db.mu.Lock()
		delete(s.db.sessions, s.pid)
		s.db.mu.Unlock()
		s.rollback()
	}()
	for {
		deadline := time.Time{}
		if s.tx != nil && s.tx.idle > 0 {
			deadline = time.Now().Add(s.tx.idle)
		}
		_ = s.c.SetReadDeadline(deadline)
		m, err := s.be.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.db.count("idle in transaction")
			return
		}
		if err != nil || !s.handle(m) || s.be.Flush() != nil {
			return
		}
	}
}

func (db *DB) count(what string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.counts[what]++
}

func (s *session) greet() bool {
	time.Sleep(time.Millisecond) //nolint:forbidigo // virtual: who tries again at once must not do so for ever in one instant
	m, err := s.be.ReceiveStartupMessage()
	if err != nil {
		return false
	}
	db := s.db
	if c, ok := m.(*pgproto3.CancelRequest); ok {
		db.mu.Lock()
		defer db.mu.Unlock()
		if other := db.sessions[c.ProcessID]; other != nil {
			select {
			case other.cancel <- struct{}{}:
			default:
			}
		}
		return false
	}
	db.mu.Lock()
	down := db.down
	if !down {
		db.pids++
		s.pid = db.pids
		db.sessions[s.pid] = s
	}
	db.mu.Unlock()
	if down {
		s.be.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P03", Message: "the database system is starting up"})
		_ = s.be.Flush()
		return false
	}
	s.be.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{{"server_version", "15.0"}, {"client_encoding", "UTF8"}, {"standard_conforming_strings", "on"}, {"TimeZone", "UTC"}} {
		s.be.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	s.be.Send(&pgproto3.BackendKeyData{ProcessID: s.pid, SecretKey: []byte{0, 0, 0, 1}})
	s.ready()
	return s.be.Flush() == nil
}

func (s *session) ready() {
	status := byte('I')
	if s.tx != nil {
		status = 'T'
		if s.tx.failed {
			status = 'E'
		}
	}
	s.be.Send(&pgproto3.ReadyForQuery{TxStatus: status})
}

// handle answers one message; false: the session ends.
func (s *session) handle(m pgproto3.FrontendMessage) bool {
	switch m := m.(type) {
	case *pgproto3.Terminate:
		return false
	case *pgproto3.Query:
		s.skip = false
		err := s.simple(m.String)
		if errors.Is(err, errGone) {
			return false
		}
		s.fail(err)
		s.skip = false
		s.ready()
		return true
	case *pgproto3.Sync:
		s.skip = false
		if s.tx != nil && !s.tx.block {
			s.rollback()
		}
		s.ready()
		return true
	}
	if s.skip {
		return true
	}
	err := s.extended(m)
	if errors.Is(err, errGone) {
		return false
	}
	s.fail(err)
	return true
}

// pgError is an error that the client gets.
type pgError struct{ code, message string }

func (e *pgError) Error() string { return e.message }

var errGone = errors.New("the session has ended")

func (s *session) fail(err error) {
	if err == nil {
		return
	}
	var pe *pgError
	if !errors.As(err, &pe) {
		pe = &pgError{"XX000", err.Error()}
	}
	s.be.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: pe.code, Message: pe.message})
	s.skip = true
	if s.tx != nil {
		s.tx.failed = true
	}
}

func (s *session) extended(m pgproto3.FrontendMessage) error {
	switch m := m.(type) {
	case *pgproto3.Parse:
		st, err := s.db.find(m.Query)
		if err != nil {
			return err
		}
		s.prepared[m.Name] = st
		s.be.Send(&pgproto3.ParseComplete{})
	case *pgproto3.Describe:
		if m.ObjectType == 'P' {
			s.describe(s.bound.statement, s.bound.formats)
			return nil
		}
		st := s.prepared[m.Name]
		if st == nil {
			return &pgError{"26000", "no such statement"}
		}
		s.be.Send(&pgproto3.ParameterDescription{ParameterOIDs: st.params})
		s.describe(st, nil)
	case *pgproto3.Bind:
		st := s.prepared[m.PreparedStatement]
		if st == nil {
			return &pgError{"26000", "no such statement"}
		}
		c := &call{statement: st, formats: append([]int16(nil), m.ResultFormatCodes...)}
		for i, p := range m.Parameters {
			if p != nil {
				p = append([]byte{}, p...)
			}
			c.params = append(c.params, param{p, format(m.ParameterFormatCodes, i)})
		}
		s.bound = c
		s.be.Send(&pgproto3.BindComplete{})
	case *pgproto3.Execute:
		return s.execute(s.bound)
	case *pgproto3.Close:
		if m.ObjectType == 'S' {
			delete(s.prepared, m.Name)
		}
		s.be.Send(&pgproto3.CloseComplete{})
	}
	return nil
}

func format(codes []int16, i int) int16 {
	switch {
	case len(codes) == 0:
		return 0
	case len(codes) == 1:
		return codes[0]
	}
	return codes[i]
}

func (s *session) describe(st *statement, formats []int16) {
	if len(st.columns) == 0 {
		s.be.Send(&pgproto3.NoData{})
		return
	}
	d := &pgproto3.RowDescription{}
	for i, oid := range st.columns {
		d.Fields = append(d.Fields, pgproto3.FieldDescription{Name: []byte(fmt.Sprintf("c%d", i)), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1, Format: format(formats, i)})
	}
	s.be.Send(d)
}

// simple runs a statement without parameters.
func (s *session) simple(sql string) error {
	st, err := s.db.find(sql)
	if err != nil {
		return err
	}
	if st.control == "" && st.run == nil && st.copied == nil && st.begins == "" {
		s.be.Send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if st.copied != nil {
		return s.copyIn(&call{statement: st})
	}
	if st.control == "" && len(st.columns) > 0 {
		s.describe(st, nil)
	}
	return s.execute(&call{statement: st})
}

// copyIn takes the rows of a COPY in binary form.
func (s *session) copyIn(c *call) error {
	if s.tx == nil || s.tx.failed {
		return &pgError{"25P02", "current transaction is aborted"}
	}
	s.be.Send(&pgproto3.CopyInResponse{OverallFormat: 1})
	if s.be.Flush() != nil {
		return errGone
	}
	var all []byte
	for done := false; !done; {
		m, err := s.be.Receive()
		if err != nil {
			return errGone
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			all = append(all, m.Data...)
		case *pgproto3.CopyFail:
			return &pgError{"57014", "COPY failed: " + m.Message}
		case *pgproto3.CopyDone:
			done = true
		}
	}
	rows, err := binaryRows(all)
	if err != nil {
		return err
	}
	c.session = s
	c.run = func(c *call) error {
		for _, row := range rows {
			c.copied(c, row)
		}
		return nil
	}
	if err := s.runCall(c); err != nil {
		return err
	}
	s.be.Send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "COPY %d", len(rows))})
	return nil
}

// binaryRows reads what COPY sends: a mark of 11 bytes, flags and an extension, and then rows.
func binaryRows(b []byte) (rows [][][]byte, err error) {
	const head = 11 + 4 + 4
	if len(b) < head {
		return nil, &pgError{"22P04", "COPY file signature not recognized"}
	}
	for b = b[head:]; len(b) >= 2; {
		n := int16(binary.BigEndian.Uint16(b))
		if b = b[2:]; n < 0 {
			return rows, nil
		}
		row := make([][]byte, n)
		for i := range row {
			if len(b) < 4 {
				return nil, &pgError{"22P04", "unexpected EOF in COPY data"}
			}
			size := int32(binary.BigEndian.Uint32(b))
			if b = b[4:]; size < 0 {
				continue
			}
			if int(size) > len(b) {
				return nil, &pgError{"22P04", "unexpected EOF in COPY data"}
			}
			row[i], b = b[:size:size], b[size:]
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (s *session) execute(c *call) error {
	if c.control != "" {
		return s.control(c.control, c.sql)
	}
	if s.tx != nil && s.tx.failed {
		return &pgError{"25P02", "current transaction is aborted"}
	}
	implicit := s.tx == nil
	if implicit {
		s.tx = &tx{began: time.Now()}
	}
	c.session = s
	err := s.runCall(c)
	if implicit {
		if err == nil {
			err = s.commit()
		}
		s.rollback()
	}
	if err != nil {
		return err
	}
	types := pgtype.NewMap()
	for _, row := range c.rows {
		out := &pgproto3.DataRow{}
		for i, v := range row {
			b, err := types.Encode(c.columns[i], format(c.formats, i), v, []byte{})
			if err != nil {
				return err
			}
			out.Values = append(out.Values, b)
		}
		s.be.Send(out)
	}
	tag := c.tag
	if tag == "" {
		tag = fmt.Sprintf("SELECT %d", len(c.rows))
	}
	s.be.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	return nil
}

func (s *session) runCall(c *call) error {
	select { // a cancellation of an earlier statement
	case <-s.cancel:
	default:
	}
	if c.locks {
		if err := s.acquire(); err != nil {
			return err
		}
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if s.dead {
		return errGone
	}
	c.db, c.now = s.db, s.tx.began
	c.state = s.db.state
	if s.tx.work != nil {
		c.state = s.tx.work
	}
	if c.run == nil {
		return nil
	}
	return c.run(c)
}

// acquire takes the right to write, and a copy of what is committed by then.
func (s *session) acquire() error {
	if s.tx.work != nil {
		return nil
	}
	s.db.wait(s.pid, true)
	defer s.db.wait(s.pid, false)
	select {
	case s.db.lock <- struct{}{}:
	case <-s.c.gone():
		return errGone
	case <-s.cancel:
		return &pgError{"57014", "canceling statement due to user request"}
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	s.tx.work, s.db.holder = s.db.state.clone(), s
	return nil
}

// commit makes what the transaction wrote the database's. errGone: its connection ends with it.
func (s *session) commit() error {
	db := s.db
	db.mu.Lock()
	defer db.mu.Unlock()
	if s.dead {
		return errGone
	}
	if s.tx.work == nil {
		return nil
	}
	fault := NoFault
	if s.tx.batch && db.fault != NoFault {
		fault, db.fault = db.fault, NoFault
		db.counts["commits cut"]++
	}
	if fault == CommitLost {
		return errGone
	}
	db.state = s.tx.work
	now := time.Now()
	if n := len(db.past); n > 0 && db.past[n-1].at.Equal(now) {
		db.past = db.past[:n-1]
	}
	db.past = append(db.past, version{now, db.state})
	s.release(true)
	if fault == AnswerLost {
		return errGone
	}
	return nil
}

func (s *session) rollback() {
	s.release(false)
	s.tx = nil
}

func (s *session) release(locked bool) {
	if s.tx == nil || s.tx.work == nil {
		return
	}
	if !locked {
		s.db.mu.Lock()
		defer s.db.mu.Unlock()
	}
	s.tx.work, s.db.holder = nil, nil
	<-s.db.lock
}

func (db *DB) wait(pid uint32, on bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.waiting[pid] = on; !on {
		delete(db.waiting, pid)
	}
}

// control begins and ends transactions and savepoints.
func (s *session) control(word, sql string) error {
	tag := word
	fields := strings.Fields(sql)
	name := fields[len(fields)-1]
	switch word {
	case "BEGIN":
		if s.tx == nil {
			s.tx = &tx{began: time.Now(), block: true}
		}
	case "COMMIT":
		if s.tx != nil && s.tx.failed {
			tag = "ROLLBACK"
		} else if s.tx != nil {
			if err := s.commit(); err != nil {
				return err
			}
		}
		s.rollback()
	case "ROLLBACK":
		s.rollback()
	case "SAVEPOINT":
		if s.tx.failed {
			return &pgError{"25P02", "current transaction is aborted"}
		}
		if err := s.acquire(); err != nil {
			return err
		}
		s.tx.saves = append(s.tx.saves, save{name, s.tx.work.clone()})
	case "ROLLBACK TO", "RELEASE":
		if s.tx.failed && word == "RELEASE" {
			return &pgError{"25P02", "current transaction is aborted"}
		}
		i := len(s.tx.saves) - 1
		for i >= 0 && s.tx.saves[i].name != name {
			i--
		}
		if i < 0 {
			return &pgError{"3B001", "no such savepoint"}
		}
		if tag = "RELEASE"; word == "ROLLBACK TO" {
			s.tx.work, s.tx.failed, tag = s.tx.saves[i].work.clone(), false, "ROLLBACK"
			i++
		}
		s.tx.saves = s.tx.saves[:i]
	}
	s.be.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	return nil
}

// terminate ends the session that holds the right to write, if the one given waits for it.
func (db *DB) terminate(waits uint32) (ended bool) {
	if db.holder == nil || !db.waiting[waits] {
		return false
	}
	db.holder.kill()
	db.counts["sessions terminated"]++
	return true
}

// snapshot is what is committed.
func (db *DB) snapshot() *state {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.state.clone()
}
