module github.com/catchment-dev/catchment/cmd/catchment

go 1.26.0

require (
	github.com/catchment-dev/catchment/archiver v0.0.0
	github.com/catchment-dev/catchment/ingress v0.0.0
	github.com/catchment-dev/catchment/pkg v0.0.0
	github.com/catchment-dev/catchment/processor v0.0.0
	github.com/fergusstrange/embedded-postgres v1.34.0
	github.com/google/go-cmp v0.7.0
	github.com/google/uuid v1.6.0
	github.com/jackc/pgx/v5 v5.12.0
	github.com/prometheus/client_golang v1.25.0
	github.com/schollz/progressbar/v3 v3.19.1
	github.com/spf13/cobra v1.10.2
	github.com/stretchr/testify v1.12.1
	github.com/twmb/franz-go v1.22.2
	github.com/twmb/franz-go/pkg/kadm v1.19.0
	github.com/twmb/franz-go/pkg/kfake v0.0.0-20260918054303-01f206a7e32c
	go.yaml.in/yaml/v4 v4.0.0
	golang.org/x/mod v0.38.0
	golang.org/x/sync v0.24.0
)

replace (
	github.com/catchment-dev/catchment/archiver => ../../archiver
	github.com/catchment-dev/catchment/ingress => ../../ingress
	github.com/catchment-dev/catchment/pkg => ../../pkg
	github.com/catchment-dev/catchment/processor => ../../processor
)
