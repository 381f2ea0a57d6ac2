package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/proctest"
)

// R15 for a backfill: its own process is killed at each boundary between two steps of a batch, and so is the processor
// that would have the partition as soon as it may. Whatever was in flight, every event has its effect once.
func TestR15KilledInBackfill(t *testing.T) {
	t.Parallel()
	tool := proctest.Build(t, "../../cmd/catchment", "-tags", "failpoints")
	program := proctest.Build(t, "../../processor/cmd/processor")
	for _, point := range []string{"in-transaction", "before-commit", "commit-sent", "after-commit"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			const batch, before = 10, 10
			kills := proctest.Kills(t)
			missing := batch * (2*kills + 2) // until it is killed, a backfill commits two batches at most
			o, ops := newOffice(t), proctest.FreeAddress(t)
			o.stop()
			o.exec(`CREATE TABLE ledger (event_id text)`)
			text, err := os.ReadFile(o.config)
			require.NoError(t, err)
			config := strings.Replace(string(text), `.processor", ops_listen: "127.0.0.1:1"`, fmt.Sprintf(`.processor", batch: %d, session_timeout: 6s, ops_listen: %q`, batch, ops), 1) +
				"  - name: ledger\n    on: {source: shop}\n    sql: INSERT INTO ledger (event_id) VALUES (@id)\n"
			sent := 0
			receive := func(n int) {
				for range n {
					o.receive(fmt.Sprintf("e%05d", sent), "noted", `{}`)
					sent++
				}
			}
			p, b := proctest.New(t, program, ops, []byte(config)), proctest.New(t, tool, "", []byte(config))
			b.Args = []string{"backfill"}
			receive(before)
			p.Start()
			o.eventually(before, `SELECT count(*)::int FROM ledger`)
			p.Stop()
			receive(missing)
			o.archiveUntil(int64(sent))
			o.overtake(int64(sent))
			receive(1)

			for n := range kills {
				p.Start()
				b.Start(fmt.Sprintf("CATCHMENT_FAILPOINT=%s=kill@%d", point, 1+rand.IntN(2)))
				if n%2 == 0 {
					p.Kill()
				}
				require.True(t, await(t, 60*time.Second, b.Ended), "%s was not passed", point)
				require.Equal(t, syscall.SIGKILL, b.KilledBy())
				if n%2 == 1 {
					p.Kill()
				}
				receive(1)
			}
			p.Start()
			b.Start()
			require.Equal(t, 0, b.Wait())
			o.eventually(sent, `SELECT next_offset::int FROM catchment.progress`)
			p.Stop()
			for _, sql := range []string{
				`SELECT count(*)::int FROM ledger`, `SELECT count(DISTINCT event_id)::int FROM ledger`,
				`SELECT count(*)::int FROM catchment.identities`, `SELECT count(*)::int FROM catchment.events WHERE status = 'processed'`,
			} {
				require.Equal(t, sent, o.count(sql), sql)
			}
			require.Zero(t, o.count(`SELECT count(*)::int FROM catchment.dead_letters`))
			require.Zero(t, o.count(`SELECT count(*)::int FROM catchment.duplicates`))
		})
	}
}
