module github.com/catchment-dev/catchment/processor

go 1.26.0
