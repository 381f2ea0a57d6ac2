package segment

import (
	"crypto/sha256"
	"hash"

	"github.com/catchment-dev/catchment/archiver/internal/row"
)

// Hash is a SHA-256.
type Hash = [sha256.Size]byte

// tree computes an RFC 6962 Merkle root from leaves that come one by one. It keeps one hash per set bit of their
// number: the roots of the perfect subtrees, the largest first.
type tree struct {
	size    uint64
	roots   []Hash
	digest  hash.Hash
	scratch []byte
}

// leafPrefix begins what is hashed of a leaf, so that no leaf can be taken for a node.
var leafPrefix = []byte{0}

// addRow adds the row's leaf, without a copy of its body.
func (t *tree) addRow(w *row.Row) {
	if t.digest == nil {
		t.digest = sha256.New()
	}
	t.digest.Reset()
	t.digest.Write(leafPrefix)
	t.scratch = w.WriteLeaf(t.digest, t.scratch)
	t.scratch = t.digest.Sum(t.scratch[:0])
	t.add(Hash(t.scratch))
}

// add takes a leaf's hash.
func (t *tree) add(h Hash) {
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.roots) - 1
		h = nodeHash(t.roots[last], h)
		t.roots = t.roots[:last]
	}
	t.roots = append(t.roots, h)
	t.size++
}

// root is the root of all leaves so far; of none it is the hash of nothing.
func (t *tree) root() Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	h := t.roots[len(t.roots)-1]
	for i := len(t.roots) - 2; i >= 0; i-- {
		h = nodeHash(t.roots[i], h)
	}
	return h
}

func nodeHash(left, right Hash) Hash {
	b := make([]byte, 0, 1+2*sha256.Size)
	return sha256.Sum256(append(append(append(b, 1), left[:]...), right[:]...))
}
