// What it is: an inspection driven by poll(), and what it has found as text.
// Who calls it: *_look_test.cpp.
// Never: waits longer than the inspection may take.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <string>
#include <string_view>

#include "broker/inspection.hpp"
#include "module_support.hpp"

namespace eventbus::test {

using broker::Finding;

// "connect: yes 127.0.0.1:1 | login: no 403 ..."
inline std::string shown(const std::vector<Finding>& findings) {
    std::string text;
    for (const Finding& finding : findings) {
        if (!text.empty()) text += " | ";
        text += std::string(finding.step) + ": " +
                (finding.answer == Finding::Answer::yes  ? "yes "
                 : finding.answer == Finding::Answer::no ? "no "
                                                         : "unknown ") +
                finding.detail;
    }
    return text;
}

inline std::vector<Finding> look(const BrokerSettings& settings, const std::string& kind = "",
                                 const std::string& name = "", bool varies = false,
                                 std::chrono::milliseconds most = std::chrono::seconds(10),
                                 const std::string& options = "{}") {
    using broker::Clock;
    const broker::Target target{kind.empty() ? broker::Addressing() : addressing_of(kind, options, varies), name};
    broker::Inspection inspection;
    inspection.begin(settings, *eventbus_driver_module(), target, most, Clock::now());
    broker::Ready ready;
    for (const auto end = Clock::now() + most + std::chrono::seconds(20); Clock::now() < end;) {
        const auto wait = inspection.drive(ready, Clock::now());
        if (wait.done) return inspection.findings();
        pollfd fd{wait.interest.fd, 0, 0};
        fd.events = static_cast<short>((wait.interest.read ? POLLIN : 0) | (wait.interest.write ? POLLOUT : 0));
        ::poll(&fd, 1, static_cast<int>(wait.most.count()));
        const bool failed = (fd.revents & (POLLERR | POLLHUP)) != 0;
        ready = {(fd.revents & POLLIN) != 0 || failed, (fd.revents & POLLOUT) != 0 || failed};
    }
    ADD_FAILURE() << "an inspection continues for ever: " << shown(inspection.findings());
    return inspection.findings();
}

// The last step.
inline std::string last(const std::vector<Finding>& findings) {
    return findings.empty() ? "" : shown({findings.back()});
}

inline void expect_part(const std::string& text, std::string_view part) {
    EXPECT_NE(text.find(part), std::string::npos) << text << "\nhas no\n" << part;
}
inline void expect_no_part(const std::string& text, std::string_view part) {
    EXPECT_EQ(text.find(part), std::string::npos) << text << "\nhas\n" << part;
}

}  // namespace eventbus::test
