package segment

import "crypto/sha256"

// Hash is a SHA-256.
type Hash = [sha256.Size]byte

// tree computes an RFC 6962 Merkle root from leaves that come one by one. It keeps one hash per set bit of their
// number: the roots of the perfect subtrees, the largest first.
type tree struct {
	size  uint64
	roots []Hash
}

// leafPrefix begins what is hashed of a leaf, so that no leaf can be taken for a node.
const leafPrefix = 0

// add takes a leaf with leafPrefix before it.
func (t *tree) add(prefixed []byte) {
	h := Hash(sha256.Sum256(prefixed))
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
