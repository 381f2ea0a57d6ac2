package journal_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
)

func TestWhatIsInvokedIsThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, folder.JournalFile)
	j, err := journal.Open(path)
	require.NoError(t, err)
	var senders sync.WaitGroup
	for i := range uint64(50) {
		senders.Go(func() {
			for k := range uint64(20) {
				a := journal.Attempt{Source: "s", ID: "e", Number: 20*i + k + 1, Kind: journal.New, SHA256: "00"}
				if err := j.Invoke(a); err != nil {
					t.Error(err)
				}
				if err := j.Complete(a, journal.Answer{Outcome: journal.OK, Status: 200}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	invoked := func() (attempts, answers int) {
		for l, err := range journal.Read(dir, nil) {
			require.NoError(t, err)
			if l.IsAnswer() {
				answers++
			} else {
				attempts++
			}
		}
		return attempts, answers
	}
	attempts, _ := invoked() // before anything else is flushed
	require.Equal(t, 1000, attempts)
	require.NoError(t, j.Close())
	attempts, answers := invoked()
	require.Equal(t, 1000, attempts)
	require.Equal(t, 1000, answers)
	require.ErrorIs(t, j.Invoke(journal.Attempt{}), journal.ErrClosed)

	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"source":"s","id":"cut`) // by a kill
	require.NoError(t, err)
	require.NoError(t, f.Close())
	attempts, _ = invoked()
	require.Equal(t, 1000, attempts)
}
