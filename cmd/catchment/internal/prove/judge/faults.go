package judge

import (
	"os"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// window is a time in which nothing could be acknowledged.
type window struct {
	number   int
	kind     string
	from, to time.Time // a zero end: it never ended
}

// readFaults counts what was done to the system. A fault that failed to begin was none.
func (j *judge) readFaults() error {
	if !folder.Exists(j.dir, folder.FaultsFile) {
		return nil
	}
	kinds := map[string]bool{}
	for f, err := range folder.Each[folder.Fault](j.dir, folder.FaultsFile, nil) {
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		switch f.Phase {
		case "begin":
			if f.Error != "" {
				continue
			}
			j.v.Faults++
			kinds[f.Kind] = true
			if f.NoAck {
				j.noAck = append(j.noAck, window{number: f.Number, kind: f.Kind, from: f.At})
			}
		case "end":
			for i := range j.noAck {
				if j.noAck[i].number == f.Number && j.noAck[i].to.IsZero() {
					j.noAck[i].to = f.At
				}
			}
		}
	}
	j.v.Kinds = len(kinds)
	return nil
}

// impossible is the fault during which an acknowledgement is a lie; nil: there was none that lasted from the request's begin to its answer.
func (j *judge) impossible(from, to time.Time) *window {
	for i := range j.noAck {
		if w := &j.noAck[i]; !from.Before(w.from) && (w.to.IsZero() || !to.After(w.to)) {
			return w
		}
	}
	return nil
}
