module darkroom/examples

go 1.22
