module github.com/ginlimit/ginlimit

go 1.25.0
