package settings

import (
	"fmt"
	"regexp"
	"slices"
	"unicode"

	"github.com/catchment-dev/catchment/pkg/config"
)

// Roles of the console's users.
const (
	ViewMetadata = "view-metadata" // all but bodies, headers and what operations read and returned
	ViewPayload  = "view-payload"  // these as well
	Operate      = "operate"       // redrive, replay, cancel, pause, resume, audit
)

// AllRoles is every role.
var AllRoles = []string{ViewMetadata, ViewPayload, Operate}

// Enabled says whether the console can tell who somebody is.
func (c *Console) Enabled() bool {
	return c.Proxy != nil || slices.ContainsFunc(c.Users, func(u ConsoleUser) bool { return !u.Password.Empty() })
}

// reBcrypt is a bcrypt hash with a cost that is neither a joke nor an outage.
var (
	reBcrypt = regexp.MustCompile(`^\$2[aby]\$(0[89]|1[0-5])\$[./A-Za-z0-9]{53}$`)
	reToken  = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`)
)

const longestName = 128

func (f *File) checkConsole(need []Section) (errs config.Errors) {
	add := func(path, format string, args ...any) { errs = append(errs, f.Errorf(path, format, args...)) }
	roles := func(path string, of []string) {
		if len(of) > 0 && !slices.Contains(of, ViewMetadata) {
			add(path, "expected %s among the roles: the others need it", ViewMetadata)
		}
	}
	seen := map[string]bool{}
	for i, u := range f.Console.Users {
		path := fmt.Sprintf("console.users[%d]", i)
		if u.Name != "" && !UserName(u.Name) {
			add(path+".name", "expected at most %d printable characters without a colon, found %q", longestName, u.Name)
		}
		if seen[u.Name] {
			add(path+".name", "there is another user named %q: expected names that differ", u.Name)
		}
		seen[u.Name] = true
		roles(path+".roles", u.Roles)
		if slices.Contains(need, NeedConsole) && !u.Password.Empty() && !reBcrypt.MatchString(u.Password.Reveal()) {
			add(path+".password", "expected a bcrypt hash of cost 8 to 15: catchment console hash-password makes one")
		}
	}
	if p := f.Console.Proxy; p != nil {
		for i, text := range p.Addresses {
			if _, err := ParsePrefix(text); err != nil {
				add(fmt.Sprintf("console.proxy.addresses[%d]", i), "expected an address or a prefix such as 10.0.0.0/8, found %q", text)
			}
		}
		if len(p.Addresses) == 0 {
			add("console.proxy.addresses", "expected at least one address: from everywhere, anybody could be anybody")
		}
		if !reToken.MatchString(p.Header) {
			add("console.proxy.header", "expected a header's name, found %q", p.Header)
		}
		roles("console.proxy.roles", p.Roles)
	}
	return errs
}

// UserName says whether a text can be the name of one of the console's users.
func UserName(s string) bool {
	if s == "" || len(s) > longestName {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == ':' || r == unicode.ReplacementChar {
			return false
		}
	}
	return true
}
