module github.com/catchment-dev/catchment/ingress

go 1.26.0
