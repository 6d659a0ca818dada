// What it is: a driver whose reasons are fit to be shown; see discreet.hpp.
// Who calls it: see discreet.hpp.
// Never: see discreet.hpp.
#include "broker/stream/discreet.hpp"

#include <utility>

#include "core/secrets.hpp"

namespace eventbus::broker {

namespace {

constexpr std::size_t longest_reason = 1500;

class Discreet final : public Driver {
 public:
    Discreet(std::unique_ptr<Driver> driver, const BrokerSettings& settings)
        : driver_(std::move(driver)), secrets_(settings) {}

    std::span<const Interest> interests() const override { return driver_->interests(); }
    TimePoint wake_at() const override { return driver_->wake_at(); }
    Link drive(Ready ready, TimePoint now) override {
        Link link = driver_->drive(ready, now);
        make_discreet(link.reason);
        return link;
    }
    bool offer(const Outgoing& outgoing) override { return driver_->offer(outgoing); }
    std::size_t settle(std::span<Settlement> out) override {
        const std::size_t count = driver_->settle(out);
        for (Settlement& settlement : out.first(count)) make_discreet(settlement.reason);
        return count;
    }

 private:
    // Many tickets end for one reason.
    void make_discreet(std::string& reason) {
        if (reason.empty()) return;
        if (reason != last_) {
            last_ = reason;
            std::string_view shown = reason;
            shown_ = secrets_.scrubbed(shown.substr(0, longest_reason));
            if (shown.size() > longest_reason) shown_ += "...";
            for (char& c : shown_)
                if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
        }
        reason = shown_;
    }

    std::unique_ptr<Driver> driver_;
    Secrets secrets_;
    std::string last_;
    std::string shown_;
};

}  // namespace

std::unique_ptr<Driver> discreet(std::unique_ptr<Driver> driver, const BrokerSettings& settings) {
    return std::make_unique<Discreet>(std::move(driver), settings);
}

}  // namespace eventbus::broker
