// What it is: the fixture of an AMQP driver that talks to a scripted broker.
// Who calls it: the unit tests of the driver.
// Never: needs a real broker.
#pragma once

#include <optional>

#include "amqp_fake_broker.hpp"
#include "amqp_harness.hpp"

namespace eventbus::broker::amqp {

// A driver at a broker that has let it in, and events 0, 1, 2 ...
class AmqpConversation : public testing::Test {
 protected:
    using Settle = std::function<void(BrokerSettings&)>;

    // One script a connection, one after the other.
    void start(std::vector<FakeBroker::Script> scripts, const Settle& settle = {}, const std::string& rest = "") {
        broker_.emplace(std::move(scripts));
        for (int id = 0; id <= 40; ++id) events_.push_back(event_of(id));
        connect(settle, rest);
    }
    void connect(const Settle& settle = {}, const std::string& rest = "") {
        BrokerSettings settings = settings_for(url_of(broker_->port(), rest));
        if (settle) settle(settings);
        driven_.emplace(settings);
        ASSERT_TRUE(driven_->until([&] { return driven_->link.state != LinkState::connecting; }));
        ASSERT_NE(driven_->link.state, LinkState::down) << driven_->link.reason;
    }
    void TearDown() override {
        if (driven_) driven_->destroy();
        broker_.reset();
    }
    std::optional<FakeBroker> broker_;
    std::optional<Driven> driven_;
    std::vector<Event> events_;
};

}  // namespace eventbus::broker::amqp
