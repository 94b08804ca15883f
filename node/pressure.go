package node

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/mozzie-mqtt/mozzie/mqttfront"
	"github.com/mozzie-mqtt/mozzie/node/admin"
	"github.com/mozzie-mqtt/mozzie/node/memory"
)

// watchMemory limits the memory of the process, where it is the node's own, and tells the broker how scarce it is.
func (n *Node) watchMemory() {
	if !n.opt.OwnProcess {
		return
	}
	limit, from := memory.Choose(int64(n.cfg.Limits.Memory), debug.SetMemoryLimit(-1), os.Getenv("GOMEMLIMIT"), memory.Root())
	if limit == 0 {
		n.log.Info("memory has no limit", "from", from)
		return
	}
	if from != memory.FromEnvironment { // the runtime has read that itself
		debug.SetMemoryLimit(limit)
	}
	n.log.Info("memory has a limit", "limit_mib", limit>>20, "from", from)
	n.memory.Store(memory.Watch(limit, func(l memory.Level, used int64) { n.onMemory(l, used, limit) }))
}

// onMemory passes on how scarce memory is, and says so.
func (n *Node) onMemory(l memory.Level, used, limit int64) {
	pressure, level, text := mqttfront.PressureNone, slog.LevelInfo, "there is enough memory again"
	switch l {
	case memory.OK:
	case memory.Tight:
		pressure, level, text = mqttfront.PressureTight, slog.LevelWarn, "memory is tight: messages of QoS 0 to clients that are slow are dropped"
	case memory.Critical:
		pressure, level, text = mqttfront.PressureCritical, slog.LevelWarn, "memory is critically scarce: connections and subscriptions are refused, and clients that publish are read from slowly"
	}
	n.broker.Load().SetPressure(pressure)
	n.log.Log(context.Background(), level, text, "used_mib", used>>20, "limit_mib", limit>>20)
}

// memoryStatus is what of the memory people see.
func (n *Node) memoryStatus() *admin.Memory {
	w := n.memory.Load()
	if w == nil {
		return nil
	}
	return &admin.Memory{Level: w.Level().String(), Used: w.Used(), Limit: w.Limit()}
}
