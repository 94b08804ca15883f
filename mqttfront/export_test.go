package mqttfront

// ReadProxyHeader is what tests outside of the package feed.
var ReadProxyHeader = readProxyHeader
