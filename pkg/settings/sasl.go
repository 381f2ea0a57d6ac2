package settings

import (
	"net/url"
	"slices"

	"github.com/catchment-dev/catchment/pkg/config"
)

// checkSASL: each mechanism has what it needs, and nothing that another one does.
func (f *File) checkSASL(need []Section) (errs config.Errors) {
	s := f.Kafka.SASL
	if s == nil || !slices.Contains(need, NeedKafka) {
		return nil
	}
	add := func(path, format string, args ...any) {
		errs = append(errs, f.Errorf("kafka.sasl"+path, format, args...))
	}
	switch s.Mechanism {
	case "plain", "scram-sha-256", "scram-sha-512":
		if s.Username.Empty() {
			add("", "mechanism %s needs the key username", s.Mechanism)
		}
		if s.Password.Empty() {
			add("", "mechanism %s needs the key password", s.Mechanism)
		}
	case "oauthbearer":
		if s.OAuth == nil {
			add("", "mechanism oauthbearer needs the key oauth, with token_file or token_url")
		} else {
			s.OAuth.check(add)
		}
	case "aws-msk-iam":
		if f.Kafka.TLS == nil {
			add("", "mechanism aws-msk-iam needs TLS: expected kafka.tls beside it, which may be {}")
		}
	default:
		return nil // told already
	}
	byPassword := s.Mechanism != "oauthbearer" && s.Mechanism != "aws-msk-iam"
	if !byPassword && !s.Username.Empty() {
		add(".username", "expected none: mechanism %s has no user name", s.Mechanism)
	}
	if !byPassword && !s.Password.Empty() {
		add(".password", "expected none: mechanism %s has no password", s.Mechanism)
	}
	if s.Mechanism != "oauthbearer" && s.OAuth != nil {
		add(".oauth", "expected none: mechanism %s has no token", s.Mechanism)
	}
	return errs
}

func (o *OAuth) check(add func(path, format string, args ...any)) {
	if (o.TokenFile == "") == (o.TokenURL == "") {
		add(".oauth", "expected either token_file or token_url")
		return
	}
	if o.TokenFile != "" {
		if !o.ClientID.Empty() || !o.ClientSecret.Empty() {
			add(".oauth.token_file", "expected no client_id and client_secret beside it: they are for token_url")
		}
		return
	}
	if u, err := url.Parse(o.TokenURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		add(".oauth.token_url", "expected a URL such as https://login.example.com/oauth2/token")
	}
	if o.ClientID.Empty() || o.ClientSecret.Empty() {
		add(".oauth", "token_url needs client_id and client_secret beside it")
	}
}
