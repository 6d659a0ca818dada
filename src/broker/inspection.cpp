#include "broker/inspection.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

namespace eventbus::broker {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds longest_wait{1000};

const char* hint_of(std::string_view step, Remedy remedy) {
    const bool settings = remedy == Remedy::fix_settings;
    if (step == "connect")
        return "See that the broker runs, that this server reaches its host and port, and that the broker's URL names "
               "them (eventbus.alter_broker).";
    if (step == "tls")
        return settings ? "Compare ca_file, crl_file, cert_file, key_file and verify of the broker's options with the "
                          "broker's certificate and with whom it lets in."
                        : "See that the URL's scheme and port belong together (eventbus.alter_broker).";
    if (step == "websocket") return "See that the URL's scheme, port and path are those of the broker's WebSocket.";
    if (step == "login")
        return settings ? "Correct user, password, virtual host or database with eventbus.alter_broker, or have the "
                          "broker let the user in; its log says more."
                        : "See that the URL's scheme and port belong together (eventbus.alter_broker), and look at the "
                          "broker's log.";
    return "Look at the broker's log.";
}

std::string seconds_text(milliseconds time) {
    const auto ms = time.count();
    return ms % 1000 == 0 ? std::to_string(ms / 1000) + " s" : std::to_string(ms) + " ms";
}

}  // namespace

void Inspection::begin(const BrokerSettings& settings, const Module& module, Target target, milliseconds most,
                       TimePoint now) {
    settings_ = settings;
    module_ = &module;
    target_ = std::move(target);
    deadline_ = now + most;
    connect(now);
}

void Inspection::refuse(const BadInput& bad) {
    findings_.push_back({"settings", Finding::Answer::no,
                         bad.message() + (bad.detail().empty() ? "" : ": " + bad.detail()), bad.hint()});
    driver_.reset();
    done_ = true;
}

// Each host that is left gets its share of the time that is left.
void Inspection::connect(TimePoint now) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline_ - now);
    const milliseconds share = std::max(left / static_cast<long>(hosts() - host_), milliseconds(1));
    host_deadline_ = now + share;
    settings_.look_ms = static_cast<std::uint32_t>(share.count());
    try {
        BrokerSettings with_password = settings_;
        load_password(with_password);
        driver_ = module_->connect(with_password, host_, now);
        driver_->look_at(target_);
    } catch (const BadInput& bad) {
        refuse(bad);
    }
}

void Inspection::next_host(TimePoint now) {
    driver_.reset();
    if (++host_ == hosts() || now >= deadline_)
        done_ = true;
    else
        connect(now);
}

void Inspection::take(Look look) {
    std::move(look.findings.begin(), look.findings.end(), std::back_inserter(findings_));
}

void Inspection::failed(const char* step, Remedy remedy, std::string reason) {
    findings_.push_back({step, Finding::Answer::no, std::move(reason), hint_of(step, remedy)});
}

Inspection::Wait Inspection::drive(Ready ready, TimePoint now) {
    if (!done_) go_on(ready, now);
    Wait wait;
    wait.done = done_;
    if (done_) return wait;
    wait.interest = driver_->interest();
    const TimePoint until = std::min(driver_->wake_at(), host_deadline_);
    if (until > now) wait.most = std::min(longest_wait, std::chrono::ceil<milliseconds>(until - now));
    return wait;
}

void Inspection::go_on(Ready ready, TimePoint now) {
    const Link link = driver_->drive(ready, now);
    Look look = driver_->look();
    const char* step = look.step;
    if (link.state == LinkState::down) {
        take(std::move(look));
        failed(step, link.remedy, link.reason);
        next_host(now);
    } else if (look.done) {
        const bool said = std::any_of(look.findings.begin(), look.findings.end(), [](const Finding& finding) {
            return std::string_view(finding.step) == "destination";
        });
        take(std::move(look));
        if (target_.addressing.varies && !said)
            findings_.push_back({"destination", Finding::Answer::unknown,
                                 "its name is made of each event: " + target_.addressing.kind + ":" + target_.name,
                                 "eventbus.routes_for(topic, key) shows the name that an event gets."});
        driver_.reset();
        done_ = true;
    } else if (now >= host_deadline_) {
        take(std::move(look));
        failed(step, Remedy::retry, "no answer within " + seconds_text(milliseconds(settings_.look_ms)));
        next_host(now);
    }
}

}  // namespace eventbus::broker
