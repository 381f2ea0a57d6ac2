package archiver

import (
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

// envKills says how often TestR37KilledUnderLoad kills an archiver.
const envKills = "CATCHMENT_TEST_ARCHIVER_KILLS"

// R37: two archivers of one group, of which one is killed again and again at any request to the store, and now and then
// leaves in good order, while records come. Each record is in exactly one row afterwards.
func TestR37KilledUnderLoad(t *testing.T) {
	kills := 20
	if text := os.Getenv(envKills); text != "" {
		var err error
		kills, err = strconv.Atoi(text)
		require.NoError(t, err, envKills)
	}
	r := newRig(t, 4)
	r.cfg.Archiver.SegmentAge, r.cfg.Archiver.DrainTimeout = 100*time.Millisecond, 5*time.Second
	requests, uploads := r.countedStore()
	archivers := []*proctest.Process{r.process(r.cfg.Archive.URL), r.process(r.cfg.Archive.URL)}
	if uploads != nil {
		archivers = []*proctest.Process{r.process(uploads.URL), r.process(uploads.URL)}
	}
	for _, p := range archivers {
		p.Start()
	}
	stop, loaded := make(chan struct{}), make(chan error, 1)
	go func() { loaded <- r.load(stop) }()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 37))
	someWork := func() {
		from, more := requests(), 1+random.IntN(20)
		r.eventually(func() bool { return requests() >= from+more }, "nothing is archived any more")
	}
	for n := range kills - 1 {
		someWork()
		p := archivers[random.IntN(len(archivers))]
		p.Kill()
		p.Start()
		if n%5 == 4 { // another leaves, and comes back
			someWork()
			p := archivers[random.IntN(len(archivers))]
			p.WaitReady()
			p.Stop()
			p.Start()
		}
	}
	someWork()
	p := archivers[0]
	p.Kill()
	close(stop)
	require.NoError(t, <-loaded)
	r.judge() // the other one alone
	p.Start()
	r.produce(50)
	r.judge()
	r.everyRow()
	for _, p := range archivers {
		p.Stop()
	}
	t.Logf("%d records, %d requests", r.made, requests())
	if uploads != nil {
		same, other := uploads.Refused()
		t.Logf("refused: %d with the same bytes, %d with others", same, other)
	}
}

// countedStore returns how much was asked of the store: requests through the proxy, or segments in the folder where
// there is no S3 server.
func (r *rig) countedStore() (func() int, *s3test.Proxy) {
	r.Helper()
	if bucket := r.inBucket(); bucket != nil {
		proxy := bucket.Proxy(r, func(*http.Request) s3test.Fault { return s3test.None })
		return proxy.Requests, proxy
	}
	return func() int { return int(r.archived() / 20) }, nil
}

// load produces until stop is closed.
func (r *rig) load(stop chan struct{}) error {
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-pace.C:
			if err := r.trySend(deliveries(40, uint64(atomic.LoadInt64(&r.made)))); err != nil {
				return err
			}
		}
	}
}
