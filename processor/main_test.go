package processor

import (
	"flag"
	"os"
	"strconv"
	"testing"
)

// waiting is how many tests may run beside each other that say so: they wait for servers, and not for a processor.
const waiting = 8

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil {
		if n, err := strconv.Atoi(f.Value.String()); err == nil && n < waiting {
			_ = f.Value.Set(strconv.Itoa(waiting))
		}
	}
	os.Exit(m.Run())
}
