package store

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// parse reads a connection URL, and the certificates that it names. The error tells nothing of the URL itself.
func parse(text string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(text)
	switch {
	case err == nil:
		return cfg, nil
	case strings.Contains(err.Error(), "failed to configure TLS"):
		return nil, fmt.Errorf("TLS: %w", errors.Unwrap(err)) // names files alone
	}
	return nil, errors.New("expected a connection URL such as postgres://user:password@host:5432/database")
}

// renew gives a new connection what the files of postgres hold now: URL, password, certificates.
func renew(p settings.Postgres) func(context.Context, *pgx.ConnConfig) error {
	return func(_ context.Context, c *pgx.ConnConfig) error {
		text, err := p.URL.Reread()
		if err != nil {
			return fmt.Errorf("postgres.url: %w", err)
		}
		now, err := parse(text)
		if err != nil {
			return fmt.Errorf("postgres.url: %w", err)
		}
		c.Host, c.Port, c.Database, c.User, c.Password = now.Host, now.Port, now.Database, now.User, now.Password
		c.TLSConfig, c.Fallbacks = now.TLSConfig, now.Fallbacks
		if p.PasswordFile == "" {
			return nil
		}
		c.Password, err = readPassword(p.PasswordFile)
		return err
	}
}

func readPassword(name string) (string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("postgres.password_file: %w", err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	if password == "" {
		return "", fmt.Errorf("postgres.password_file: expected a password in %s, found an empty file", name)
	}
	return password, nil
}

// MigrateURL is the URL with which the schema is changed: postgres.migrate_url, else postgres.url with its password.
func MigrateURL(p settings.Postgres) (config.Secret, error) {
	if !p.MigrateURL.Empty() || p.PasswordFile == "" {
		from := p.MigrateURL
		if from.Empty() {
			from = p.URL
		}
		text, err := from.Reread()
		return config.NewSecret(text), err
	}
	text, err := p.URL.Reread()
	if err != nil {
		return config.Secret{}, fmt.Errorf("postgres.url: %w", err)
	}
	password, err := readPassword(p.PasswordFile)
	if err != nil {
		return config.Secret{}, err
	}
	return withPassword(text, password)
}

// CertificateEnds returns when the client certificate of postgres.url expires; no certificate: false.
func CertificateEnds(p settings.Postgres) (ends time.Time, there bool, err error) {
	text, err := p.URL.Reread()
	if err != nil {
		return ends, true, err
	}
	cfg, err := parse(text)
	if err != nil {
		return ends, true, err
	}
	if cfg.TLSConfig == nil || len(cfg.TLSConfig.Certificates) == 0 {
		return ends, false, nil
	}
	cert, err := x509.ParseCertificate(cfg.TLSConfig.Certificates[0].Certificate[0])
	if err != nil {
		return ends, true, err
	}
	return cert.NotAfter, true, nil
}

// withPassword puts a password into a connection URL, or into its other form, key=value.
func withPassword(text, password string) (config.Secret, error) {
	if !strings.Contains(text, "://") {
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password)
		return config.NewSecret(text + " password='" + quoted + "'"), nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return config.Secret{}, errors.New("postgres.url: expected a connection URL such as postgres://user:password@host:5432/database")
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return config.NewSecret(u.String()), nil
}
