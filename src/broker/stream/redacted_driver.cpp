#include "broker/stream/redacted_driver.hpp"

#include <utility>

#include "core/secrets.hpp"

namespace eventbus::broker {

namespace {

constexpr std::size_t longest_reason = 1500;

class Discreet final : public Driver {
 public:
    Discreet(std::unique_ptr<Driver> driver, const BrokerSettings& settings)
        : driver_(std::move(driver)), secrets_(settings) {}

    Interest interest() const override { return driver_->interest(); }
    TimePoint wake_at() const override { return driver_->wake_at(); }
    Link drive(Ready ready, TimePoint now) override {
        Link link = driver_->drive(ready, now);
        redact(link.reason);
        return link;
    }
    bool offer(const Outgoing& outgoing) override { return driver_->offer(outgoing); }
    std::size_t settle(std::span<Settlement> out) override {
        const std::size_t count = driver_->settle(out);
        for (Settlement& settlement : out.first(count)) redact(settlement.reason);
        return count;
    }
    void look_at(const Target& target) override { driver_->look_at(target); }
    Look look() const override {
        Look look = driver_->look();
        for (Finding& finding : look.findings) {
            finding.detail = shown(finding.detail);
            finding.hint = shown(finding.hint);
        }
        return look;
    }

 private:
    std::string shown(std::string_view words) const {
        std::string text = secrets_.scrubbed(words.substr(0, longest_reason));
        if (words.size() > longest_reason) text += "...";
        for (char& c : text)
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
        return text;
    }
    // Many tickets end for one reason.
    void redact(std::string& reason) {
        if (reason.empty()) return;
        if (reason != last_) {
            last_ = reason;
            shown_ = shown(reason);
        }
        reason = shown_;
    }

    std::unique_ptr<Driver> driver_;
    Secrets secrets_;
    std::string last_;
    std::string shown_;
};

}  // namespace

std::unique_ptr<Driver> redacted(std::unique_ptr<Driver> driver, const BrokerSettings& settings) {
    return std::make_unique<Discreet>(std::move(driver), settings);
}

}  // namespace eventbus::broker
