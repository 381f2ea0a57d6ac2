package store

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// Rows are the same however they are read, with long values at their begin, at their end and behind each other.
func TestRowsReadOut(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 100)
	make := func() *rows {
		r := rowsOf(2, 3, 8, 2)
		for range 2 {
			r.row()
			r.blob(long)
			r.blob(long[:shortest])
			r.blob(long[:3])
		}
		r.row()
		r.some("")
		r.text("x")
		r.blob(long)
		return r
	}
	one := append([]byte{0, 3, 0, 0, 6, 0x40}, long...)
	one = append(append(one, 0, 0, 1, 0), long[:shortest]...)
	one = append(one, 0, 0, 0, 3, '0', '1', '2')
	want := append([]byte(copyMark), 0, 0, 0, 0, 0, 0, 0, 0)
	want = append(append(want, one...), one...)
	want = append(append(want, 0, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 'x', 0, 0, 6, 0x40), long...)
	for name, read := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader,
	} {
		got, err := io.ReadAll(read(make()))
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
}

// A process that stops while it sends rows holds the partition for as long as no other one wants it: while the server
// waits for rows, no timeout of its own ends the transaction.
func TestClaimEndsACopyThatHangs(t *testing.T) {
	url := pgtest.New(t)
	require.NoError(t, Migrate(t.Context(), url))
	s, err := Open(t.Context(), settings.Postgres{URL: config.NewSecret(url)}, "test")
	require.NoError(t, err)
	t.Cleanup(s.Close)
	p, owner := Partition{Topic: "t", TopicID: [16]byte{1}, Partition: 0}, uuid.New()
	_, err = s.Claim(t.Context(), p, 0, owner, time.Second)
	require.NoError(t, err)
	tx, err := s.Begin(t.Context(), time.Second, time.Second)
	require.NoError(t, err)
	defer tx.Rollback(t.Context())
	_, err = tx.Enter(t.Context(), p, owner, 0, nil)
	require.NoError(t, err)

	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := tx.tx.Conn().PgConn().CopyFrom(t.Context(), r, `COPY catchment.results FROM STDIN (FORMAT binary)`)
		ended <- err
	}()
	_, err = w.Write([]byte(copyMark)) // the server waits for the rest from now on
	require.NoError(t, err)
	_, err = s.Claim(t.Context(), p, 0, uuid.New(), 100*time.Millisecond)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Error(t, <-ended)
}
