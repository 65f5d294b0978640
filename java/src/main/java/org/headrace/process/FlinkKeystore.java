package org.headrace.process;

import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.Configuration;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.UnrecoverableKeyException;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * A keystore or truststore of Flink's settings, opened. Every failure names the setting to look at.
 *
 * @param store the open store
 * @param setting name of the setting that names the file
 */
record FlinkKeystore(KeyStore store, String setting) {

    /**
     * Reads a store from its file.
     *
     * @param file setting with the file, and the general one that Flink reads if it is not set
     * @param password likewise
     * @param type of the store
     */
    static FlinkKeystore open(
            Configuration flink, Fallback file, Fallback password, ConfigOption<String> type)
            throws TlsSettingsException {
        Found path = file.find(flink);
        Found secret = password.find(flink);
        KeyStore store;
        try {
            store = KeyStore.getInstance(flink.get(type));
        } catch (GeneralSecurityException e) {
            throw new TlsSettingsException(
                    String.format("`%s` is '%s', which this JVM does not know.", type.key(), flink.get(type)), e);
        }
        try (InputStream bytes = Files.newInputStream(Path.of(path.value()))) {
            store.load(bytes, secret.value().toCharArray());
        } catch (NoSuchFileException e) {
            throw new TlsSettingsException(
                    String.format("`%s` names %s, and there is no such file.", path.setting(), path.value()), e);
        } catch (IOException | GeneralSecurityException e) {
            throw new TlsSettingsException(
                    e.getCause() instanceof UnrecoverableKeyException
                            ? String.format("`%s` does not open %s.", secret.setting(), path.value())
                            : String.format(
                                    "`%s` names %s, which cannot be read as a store of the type '%s' (`%s`): %s.",
                                    path.setting(), path.value(), flink.get(type), type.key(), e.getMessage()),
                    e);
        }
        return new FlinkKeystore(store, path.setting());
    }

    /** The first entry with a private key, by name. */
    String keyAlias() throws TlsSettingsException, GeneralSecurityException {
        List<String> aliases = Collections.list(store.aliases());
        Collections.sort(aliases);
        for (String alias : aliases) {
            if (store.isKeyEntry(alias) && store.getCertificate(alias) instanceof X509Certificate) {
                return alias;
            }
        }
        throw new TlsSettingsException(
                String.format("`%s` names a store without a private key and its certificate.", setting), null);
    }

    /** The private key of an entry. */
    PrivateKey key(String alias, Fallback password, Configuration flink)
            throws TlsSettingsException, GeneralSecurityException {
        Found secret = password.find(flink);
        try {
            if (store.getKey(alias, secret.value().toCharArray()) instanceof PrivateKey key && key.getEncoded() != null) {
                return key;
            }
        } catch (UnrecoverableKeyException e) {
            throw new TlsSettingsException(
                    String.format("`%s` does not open the key '%s' of `%s`.", secret.setting(), alias, setting), e);
        }
        throw new TlsSettingsException(
                String.format("The key '%s' of `%s` does not leave its store.", alias, setting), null);
    }

    /**
     * The certificates that a peer's must be, or be issued by: those that Java's trust manager takes from
     * the store, its private keys' own among them.
     */
    List<X509Certificate> trusted() throws GeneralSecurityException {
        List<X509Certificate> found = new ArrayList<>();
        for (String alias : Collections.list(store.aliases())) {
            Certificate certificate = store.getCertificate(alias);
            if (certificate instanceof X509Certificate x509) {
                found.add(x509);
            }
        }
        return found;
    }

    /** A setting for internal connections, and the general one that counts where it is not set. */
    record Fallback(ConfigOption<String> first, ConfigOption<String> second) {

        Found find(Configuration flink) throws TlsSettingsException {
            for (ConfigOption<String> option : List.of(first, second)) {
                String value = flink.get(option);
                if (value != null) {
                    return new Found(value, option.key());
                }
            }
            throw new TlsSettingsException(
                    String.format("Neither `%s` nor `%s` is set.", first.key(), second.key()), null);
        }
    }

    /** A value, and the name of the setting that it is of. */
    record Found(String value, String setting) {

        @Override
        public String toString() {
            return setting; // the value may be a password
        }
    }
}
