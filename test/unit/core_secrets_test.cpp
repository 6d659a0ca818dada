// What it is: tests of secrets in other people's words.
// Who calls it: make -C test/unit core.
// Never: needs a broker.
#include "core/secrets.hpp"

#include <gtest/gtest.h>

using namespace eventbus;

namespace {

std::string scrubbed(const std::string& password, const std::string& text) {
    BrokerSettings settings;
    settings.url.user = "app";
    settings.password = password;
    return Secrets(settings).scrubbed(text);
}

}  // namespace

TEST(Secrets, WhateverEncodingTheyComeBackIn) {
    const std::string password = "s3cr3t/\"pass\x01word";
    EXPECT_EQ(scrubbed(password, "no s3cr3t/\"pass\x01word here"), "no *** here");
    EXPECT_EQ(scrubbed(password, "no s3cr3t/\"pass?word here"), "no *** here") << "printed as a question mark";
    EXPECT_EQ(scrubbed(password, "no s3cr3t/\"pass word here"), "no *** here") << "Redis makes blanks of some";
    EXPECT_EQ(scrubbed(password, "no s3cr3t%2F%22pass%01word here"), "no *** here");
    EXPECT_EQ(scrubbed(password, "no s3cr3t%2f%22pass%01word here"), "no *** here");
    EXPECT_EQ(scrubbed(password, R"(no s3cr3t/\"pass\x01word here)"), "no *** here");
    EXPECT_EQ(scrubbed("s3cr3t-pass", "PLAIN ?app?s3cr3t-pass!"), "PLAIN ?app?***!");
    EXPECT_EQ(scrubbed("s3cr3t-pass", "Basic YXBwOnMzY3IzdC1wYXNz"), "Basic ***") << "app:s3cr3t-pass";
    EXPECT_EQ(scrubbed("s3cr3t-pass", "SASL AGFwcABzM2NyM3QtcGFzcw=="), "SASL ***==") << "\\0app\\0s3cr3t-pass";
    EXPECT_EQ(scrubbed("s3cr3t-pass", "czNjcjN0LXBhc3M="), "***=");
    EXPECT_EQ(scrubbed("p\xC3\xA4ssword", "no p??ssword, p\xC3\xA4ssword"), "no ***, ***");
}

TEST(Secrets, OftenAndInPieces) {
    const std::string password = "correct-horse-battery";
    EXPECT_EQ(scrubbed(password, "correct-horse-batterycorrect-horse-battery"), "***");
    EXPECT_EQ(scrubbed(password, "a 'correct-horse-bat' b"), "a '***' b");
    EXPECT_EQ(scrubbed(password, "a '-horse-battery' b"), "a '***' b");
    EXPECT_EQ(scrubbed(password, "correct horse battery"), "correct horse battery");
    EXPECT_EQ(scrubbed(password, "with args beginning with: 'corre"), "with args beginning with: '***");
    EXPECT_EQ(scrubbed(password, "auth corre...; what is added"), "auth ***...; what is added");
    EXPECT_EQ(scrubbed("hunter", "auth hunt..."), "auth ***...");
}

TEST(Secrets, ShortOnesStandAlone) {
    EXPECT_EQ(scrubbed("pw", "the pwd 'pw' of pw"), "the pwd '***' of ***");
    EXPECT_EQ(scrubbed("", "nothing to hide"), "nothing to hide");
    EXPECT_EQ(scrubbed("x", ""), "");
}
