module github.com/catchment-dev/catchment/cmd/catchment

go 1.26.0
