module github.com/mozzie-mqtt/mozzie

go 1.26
