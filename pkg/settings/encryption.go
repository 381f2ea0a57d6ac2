package settings

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/pkg/config"
)

// masterKeySize is that of a master key, in bytes.
const masterKeySize = 32

// MasterKey reads a master key: 256 bits in base64 or hex.
func MasterKey(s config.Secret) ([]byte, error) {
	text := strings.TrimSpace(s.Reveal())
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if key, err := decode(text); err == nil && len(key) == masterKeySize {
			return key, nil
		}
	}
	return nil, errors.New("expected 256 bits in base64 or hex, such as `openssl rand -base64 32` makes them")
}

// checkEncryption: the keys lie where nothing of the archive does, for whoever copies one should not copy the other.
func (f *File) checkEncryption(need []Section) (errs config.Errors) {
	e := f.Archive.Encryption
	if e == nil || !slices.Contains(need, NeedArchive) {
		return nil
	}
	const path = "archive.encryption."
	keys, err := ParsePlace(e.KeysURL)
	archive, errArchive := ParsePlace(f.Archive.URL)
	switch {
	case e.KeysURL == "":
	case err != nil:
		errs = append(errs, f.Errorf(path+"keys_url", "%v", err))
	case errArchive == nil && keys.Bucket == archive.Bucket && strings.EqualFold(keys.Endpoint, archive.Endpoint) &&
		(within(keys.path(), archive.path()) || within(archive.path(), keys.path())):
		errs = append(errs, f.Errorf(path+"keys_url", "expected a place apart from archive.url: what is erased must not be in copies of the archive"))
	}
	secrets := map[string]config.Secret{path + "master_key": e.MasterKey}
	for i, s := range e.OldMasterKeys {
		secrets[fmt.Sprintf("%sold_master_keys[%d]", path, i)] = s
	}
	for _, at := range slices.Sorted(maps.Keys(secrets)) {
		if _, err := MasterKey(secrets[at]); err != nil && !secrets[at].Empty() {
			errs = append(errs, f.Errorf(at, "%v", err))
		}
	}
	return errs
}

// within says whether a path is a folder or lies in it.
func within(path, folder string) bool {
	return strings.HasPrefix(strings.Trim(path, "/")+"/", strings.TrimPrefix(strings.Trim(folder, "/")+"/", "/"))
}
